-- tolerance: what other scripts include to stop a batch of which too many jobs have failed. The header's field
-- `max_failures` is a number of jobs ("10") or a share of them ("0.1"); what was cancelled counts for neither side.

-- @include orders

-- Stop a batch whose failures are past its limit: it takes no more jobs, and none of those that it has starts any more.
-- A share is judged once 100 results are in, or half of the jobs of a batch that is closed with fewer than 200.
-- Returns whether it is stopped now.
local function stop_if_past(header, limit, total, is_closed)
  local counts = redis.call('HMGET', header, 'success', 'timeout', 'failure', 'lost')
  local failures = counts[2] + counts[3] + counts[4]
  local results = failures + counts[1]
  local allowed = tonumber(limit)
  if string.find(limit, '.', 1, true) then
    if results < 100 and not (is_closed and results * 2 >= total) then return false end
    allowed = allowed * results
  end
  if failures <= allowed then return false end
  local why = string.format('max_failures %s: %d of %d jobs did not succeed', limit, failures, results)
  if redis.call('HSETNX', header, 'stopped', why) == 1 then announce(header) end
  redis.call('HSET', header, 'closed', 1)
  return true
end

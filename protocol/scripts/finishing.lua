-- finishing: what other scripts include to let go of a chunk: to forget it, or to put it back into the queue.
-- A Redis that was restarted without its last writes may know less than the chunk's worker: not of all results, not of a job
-- that has left to run again, not that the chunk was cut. A job of which it does not know what has become runs again.
-- @include crashes
-- @include lapsing
-- @include places

-- Whether a job of a chunk has no result, and has not left it to run again.
local function has_open_jobs(header, chunk, start, stop)
  local from, last = math.floor(start / 8), math.floor((stop - 1) / 8)
  local bits = redis.pcall('GETRANGE', header .. ':done', from, last)
  if type(bits) ~= 'string' then return false end
  bits = bits .. string.rep('\0', last - from + 1 - #bits)
  local at, may_have_left = string.find(bits, '[^\255]'), not string.find(chunk, '+', 1, true)
  while at do
    local byte, index = string.byte(bits, at), 8 * (from + at - 1)
    for place = math.max(start - index, 0), math.min(stop - index, 8) - 1 do
      if math.floor(byte / 2 ^ (7 - place)) % 2 == 0
        and not (may_have_left and ask('HEXISTS', header .. ':retries', string.format('%d', index + place)) == 1) then
        return true
      end
    end
    at = string.find(bits, '[^\255]', at + 1)
  end
  return false
end

-- Put a chunk back into the queue, where it stood.
local function put_back(queue, chunk, header, jobs, lifetime)
  local time = redis.call('TIME')
  -- Fails where no queue stands there, before anything is changed.
  redis.call('ZADD', queue, place_of(chunk, time[1] * 1000 + math.floor(time[2] / 1000)), chunk)
  redis.call('PEXPIRE', queue, lifetime)
  redis.call('DEL', 'arq:in-progress:' .. chunk)
  ask('ZREM', leases_of(queue), chunk)
  if ask('HDEL', header .. ':holders', chunk) == 1 then ask('HINCRBY', header, 'taken', -jobs) end
  wake_one('straggler:wake:' .. string.sub(queue, #'straggler:queue:' + 1), lifetime)
end

-- Put a chunk back that has open jobs; returns whether it has. Of a batch that is gone or has ended nothing runs again; nor
-- where no result can be kept, as nothing would come of it, time and again. Never fails, as `finish`.
local function put_back_if_open(queue, chunk, header, payload, lifetime)
  local start, stop = range_of(payload)
  if not start or not has_open_jobs(header, chunk, start, stop) then return false end
  if not goes_on(header) or not ask('XLEN', header .. ':results') then return false end
  pcall(put_back, queue, chunk, header, stop - start, lifetime)
  return true
end

-- Forget a chunk: its place in the queue, its keys of arq's and, where all its jobs have "succeeded", what they were.
-- Never fails, as what was done before it in the same call would be taken for not done.
local function finish(queue, chunk, header, first, outcome)
  ask('ZREM', queue, chunk)
  ask('ZREM', leases_of(queue), chunk)
  redis.call('DEL', 'arq:in-progress:' .. chunk, 'arq:job:' .. chunk, 'arq:retry:' .. chunk)
  ask('HDEL', header .. ':holders', chunk)
  if outcome == 'succeeded' then ask('HDEL', header .. ':chunks', first) end
end

-- cancel: decide that jobs are cancelled, all of a batch or some; who holds or collects them gives them their results.
-- All of them: the batch takes no more jobs, too. Safe to call twice: a job that is cancelled already keeps its reason.
-- Reads and writes: KEYS 1 header, 2 cancelled, 3 done, 4 chunks; of a batch that ends its results, holders, crashes, ...
-- ARGV 1 lifetime of an open batch ms, 2 reason, then indexes in ascending order, at most 250; none for all
-- Returns {number of the last decision, jobs of these that have no result, then for each of those the first of its chunk (-1:
--      it is gone)}, or {-1} if there is no such batch, {-2} if it is complete
-- @include orders
-- @include ending
local fields = redis.call('HMGET', KEYS[1], 'total', 'done', 'finished_at', 'control')
if not fields[1] then return {-1} end
if fields[3] then return {-2} end
local LARGEST_CHUNK = 1000
local changed, open, firsts = 0, 0, {}

-- The first index of a job's chunk; the one before it was looked for already, and is in the chunk `before`.
local function find_chunk(index, last, before)
  for first = index, math.max(last + 1, index - LARGEST_CHUNK + 1, 0), -1 do
    if redis.call('HEXISTS', KEYS[4], string.format('%d', first)) == 1 then return first end
  end
  return before
end

if #ARGV == 2 then
  open = fields[1] - fields[2]
  changed = redis.call('HSETNX', KEYS[2], '*', ARGV[2])
  if changed == 1 then
    local time = redis.call('TIME')
    redis.call('HSETNX', KEYS[1], 'stopped', ARGV[2])
    redis.call('HSET', KEYS[1], 'closed', 1, 'cancelled_at', time[1] .. '.' .. string.format('%06d', time[2]))
  end
else
  local last, first = -1, -1
  for at = 3, #ARGV do
    local index = tonumber(ARGV[at])
    if redis.call('GETBIT', KEYS[3], index) == 0 then
      first = find_chunk(index, last, first)
      last = index
      table.insert(firsts, first)
      open = open + 1
      changed = changed + redis.call('HSETNX', KEYS[2], ARGV[at], ARGV[2])
    end
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
local version = tonumber(fields[4] or 0)
if changed > 0 then version = announce(KEYS[1]) end
if #ARGV == 2 then end_if_complete(KEYS[1]) end
return {version, open, unpack(firsts)}

-- close: let an open batch take no more jobs, now or as soon as all that it has are done. Safe to call twice.
-- Reads and writes: KEYS 1 header, 2 results; of a batch that ends what ending.lua says
-- ARGV 1 lifetime of an open batch ms, 2 "now", "when idle" (its jobs may add to it until the last of them is done), or the id
--      of a stream entry: now, if all jobs are done and this is the last of their results
-- Returns 1 if the batch is closed, 0 if it is open, -1 if there is no such batch
-- @include ending
local fields = redis.call('HMGET', KEYS[1], 'total', 'done', 'closed')
if not fields[1] then return -1 end
if fields[3] == '1' then return 1 end
local is_idle = fields[1] == fields[2]

local function is_last(entry)
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  return entry == (last[1] and last[1][1] or '0-0')
end

if ARGV[2] == 'when idle' then
  redis.call('HSET', KEYS[1], 'close_when_idle', 1)
  -- One that has no jobs yet is only about to begin.
  is_idle = is_idle and fields[1] ~= '0'
elseif ARGV[2] ~= 'now' then
  is_idle = is_idle and is_last(ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if not is_idle and ARGV[2] ~= 'now' then return 0 end
redis.call('HSET', KEYS[1], 'closed', 1)
end_if_complete(KEYS[1])
return 1

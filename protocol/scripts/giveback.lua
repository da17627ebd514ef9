-- giveback: put jobs of a chunk that have not started back into the queue, where they stood, for whoever can start them.
-- The chunk is cut in front of them, unless they are all that it has; no attempt is burnt. They are kept where no other
-- worker lives, and where something was decided of which this worker has not heard: it knows what becomes of them. So are
-- those of a chunk that was run before, where a cut would take jobs that run again, or deaths, away from what is noted of it.
-- Safe to call twice: a chunk that was cut there already stays as it is, and so does one that is another's.
-- Reads and writes: KEYS 1 queue, 2 wake, 3 the live workers of the queue, 4 the batch's header; the queue's leases; of the
--      chunk and of what is given back the arq keys; the batch's chunks, done bits, holders, retries and crashes
-- ARGV 1 worker id, 2 lifetime of an open batch ms, 3 chunk id, 4 how many of its jobs are kept (0: none, whatever it has),
--      5 the last decision of which the worker knows
-- Returns 1 if they are in the queue, 0 if they are kept, -1 if the chunk is this worker's no longer
-- @include crashes
-- @include done
-- @include lapsing
-- @include ranges
-- @include splitting
local worker, lifetime, chunk, kept, header = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), KEYS[4]
if not holds(worker, ask('GET', 'arq:in-progress:' .. chunk), (read_holder(header, chunk))) then return -1 end
local ok, payload = pcall(cjson.decode, ask('GET', 'arq:job:' .. chunk) or '')
if not ok or type(payload) ~= 'table' or type(payload.a) ~= 'table' then return 0 end
local batch, first, count, index = payload.a[1], payload.a[2], payload.a[3], payload.a[4]
if kept > 0 and count == kept then return 1 end

local others = (ask('ZCARD', KEYS[3]) or 0) - (ask('ZSCORE', KEYS[3], worker) and 1 or 0)
local fields = ask('HMGET', header, 'options', 'finished_at', 'control')
if others < 1 or not fields or not fields[1] or fields[2] or (fields[3] or '') ~= ARGV[5] then return 0 end
local has_run = kept > 0 and redis.call('EXISTS', header .. ':retries', header .. ':crashes') > 0
if has_run then
  if ask('HEXISTS', header .. ':crashes', chunk) == 1 then return 0 end
  if #read_range(header .. ':retries', first + kept, first + count) > 0 then return 0 end
end
-- Fails where no queue stands there, before anything is written.
redis.call('ZCARD', KEYS[1])

local function write_chunk(from, jobs, text)
  redis.call('HSET', header .. ':chunks', string.format('%d', from), text)
  local id = string.format('%s:%d', batch, from)
  redis.call('SET', 'arq:job:' .. id, write_payload(batch, from, jobs, nil, payload.et), 'PX', lifetime)
  return id
end

local given, start = chunk, index or first
if kept > 0 then
  local head, tail = cut_text(ask('HGET', header .. ':chunks', string.format('%d', first)) or '', kept)
  if not head then return 0 end
  start = first + kept
  write_chunk(first, kept, head)
  given = write_chunk(start, count - kept, tail)
else
  redis.call('DEL', 'arq:in-progress:' .. chunk)
  ask('ZREM', leases_of(KEYS[1]), chunk)
  ask('HDEL', header .. ':holders', chunk)
end
local stop = index and index + 1 or first + count
-- As a claim counts: those that were cancelled while they waited are over.
local over = 0
if fields[3] then
  local bits = ask('GETRANGE', header .. ':done', math.floor(first / 8), math.floor(stop / 8))
  over = count_done(bits, first, start, stop)
end
ask('HINCRBY', header, 'taken', start - stop + over)
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], place_of(given, time[1] * 1000 + math.floor(time[2] / 1000)), given)
redis.call('PEXPIRE', KEYS[1], lifetime)
wake_one(KEYS[2], lifetime)
return 1

-- retry: let failed jobs run again later, each as a chunk of its own: one of arq's deferred jobs.
-- Safe to call twice: a failure that is counted already is passed over, and so is a job that has its result.
-- Reads and writes: KEYS 1 queue, 2 wake; the queue's leases; of each job the arq keys of its chunks, and its batch's header, done bits,
--      holders, crashes, retries and attempts
-- ARGV 1 worker id, 2 lifetime of an open batch ms, then for each job: its batch id, the chunk in which it failed, index,
--      failures so far, delay ms, the chunk in which it runs again, that one's payload, and how the attempt ended (JSON)
-- Returns how many will run again
-- @include crashes
-- @include lapsing
-- @include orders
-- @include places
local worker, lifetime = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local deferred = 0

-- The deaths under a job go with it; those under its old chunk from now on are none of its own.
local function take_crashes_along(header, held, chunk, index)
  local under = {}
  for _, crash in ipairs(read_crashes(header, held)) do
    local start, stop = nil, nil
    if type(crash) == 'table' then start, stop = tonumber(crash.start), tonumber(crash.stop) end
    if start and stop and start <= index and index < stop then table.insert(under, crash) end
  end
  if #under > 0 then write_crashes(header, chunk, under, lifetime) end
end

-- Fails where no queue stands there, before a failure is counted that would keep the job out of it for ever.
redis.call('ZCARD', KEYS[1])
for at = 3, #ARGV, 8 do
  local header, held, index = 'straggler:batch:' .. ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local failures, chunk = tonumber(ARGV[at + 3]), ARGV[at + 5]
  local known = tonumber(ask('HGET', header .. ':retries', index) or 0) or 0
  local lease, payload = unpack(redis.call('MGET', 'arq:in-progress:' .. held, 'arq:job:' .. held))
  local start, stop = range_of(payload)
  -- Restarted without its last writes, Redis may have cut the chunk elsewhere since.
  local is_in_it = not start or (start <= tonumber(index) and tonumber(index) < stop)
  -- Where the lease is lost, whoever has it now runs the job, too, and says what becomes of it.
  if is_in_it and holds(worker, lease, (read_holder(header, held))) and known < failures
    and redis.call('EXISTS', header) == 1 and ask('GETBIT', header .. ':done', index) ~= 1 then
    deferred = deferred + 1
    put('HSET', header .. ':retries', index, failures)
    redis.call('PEXPIRE', header .. ':retries', lifetime)
    attempts().note(header, index, ARGV[at + 7], lifetime)
    if held == chunk then
      redis.call('DEL', 'arq:in-progress:' .. held, 'arq:retry:' .. held)
      ask('HDEL', header .. ':holders', held)
      ask('ZREM', leases_of(KEYS[1]), held)
    else
      take_crashes_along(header, held, chunk, tonumber(index))
    end
    ask('HINCRBY', header, 'taken', -1)
    redis.call('SET', 'arq:job:' .. chunk, ARGV[at + 6], 'PX', lifetime)
    -- One that was cancelled meanwhile comes back at once, to be given its result.
    local delay = is_refused(header, index) and 0 or ARGV[at + 4]
    redis.call('ZADD', KEYS[1], now_ms + delay, chunk)
    redis.call('PEXPIRE', KEYS[1], lifetime)
  end
end
-- Who sleeps until the next chunk is due must hear that another may be due before.
if deferred > 0 then wake_one(KEYS[2], lifetime) end
return deferred

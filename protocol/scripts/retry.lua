-- retry: let failed jobs run again later, each as a chunk of its own: one of arq's deferred jobs.
-- Safe to call twice: a failure that is counted already is passed over, and so is a job that has its result.
-- Reads and writes: KEYS 1 queue, 2 wake; of each job the arq keys of its chunks, and its batch's header, done bits,
--      holders and retries
-- ARGV 1 worker id, 2 lifetime of an open batch ms, then for each job: its batch id, the chunk in which it failed, index,
--      failures so far, delay ms, the chunk in which it runs again, and that one's payload
-- Returns how many will run again
local worker, lifetime = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local deferred = 0
for at = 3, #ARGV, 7 do
  local header, held, index = 'straggler:batch:' .. ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local failures, chunk = tonumber(ARGV[at + 3]), ARGV[at + 5]
  local known = tonumber(redis.call('HGET', header .. ':retries', index) or 0)
  -- Where the lease is lost, whoever has it now runs the job, too, and says what becomes of it.
  if redis.call('GET', 'arq:in-progress:' .. held) == worker and known < failures
    and redis.call('EXISTS', header) == 1 and redis.call('GETBIT', header .. ':done', index) == 0 then
    deferred = deferred + 1
    redis.call('HSET', header .. ':retries', index, failures)
    redis.call('PEXPIRE', header .. ':retries', lifetime)
    if held == chunk then
      redis.call('DEL', 'arq:in-progress:' .. held, 'arq:retry:' .. held)
      redis.call('HDEL', header .. ':holders', held)
    end
    redis.call('HINCRBY', header, 'taken', -1)
    redis.call('SET', 'arq:job:' .. chunk, ARGV[at + 6], 'PX', lifetime)
    redis.call('ZADD', KEYS[1], now_ms + ARGV[at + 4], chunk)
    redis.call('PEXPIRE', KEYS[1], lifetime)
  end
end
-- Who sleeps until the next chunk is due must hear that another may be due before.
if deferred > 0 and redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('LPUSH', KEYS[2], 1)
  redis.call('PEXPIRE', KEYS[2], lifetime)
end
return deferred

-- release: let go of leases that are still this worker's: of chunks that are finished, or that another worker shall run.
-- Safe to call twice: a chunk that is no longer held is passed over.
-- Reads and writes: KEYS 1 queue, 2 wake; of each chunk its arq keys, and its batch's header and chunks
-- ARGV 1 worker id, 2 lifetime of an open batch ms, then for each chunk: id, batch id, first index, number of jobs, outcome:
--      "succeeded" (all jobs; forget them), "ended" (all have a result; keep them for redrive), "again" (run it elsewhere,
--      no attempt burnt)
-- Returns how many were released
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local released = 0
for at = 3, #ARGV, 5 do
  local chunk, outcome = ARGV[at], ARGV[at + 4]
  if redis.call('GET', 'arq:in-progress:' .. chunk) == ARGV[1] then
    released = released + 1
    local header = 'straggler:batch:' .. ARGV[at + 1]
    -- The chunk of a batch that was deleted is forgotten, whatever became of its jobs.
    if outcome == 'again' and redis.call('EXISTS', header) == 1 then
      redis.call('DEL', 'arq:in-progress:' .. chunk)
      if redis.call('DECR', 'arq:retry:' .. chunk) == 0 then
        redis.call('HINCRBY', header, 'taken', -ARGV[at + 3])
      end
      redis.call('ZADD', KEYS[1], now_ms, chunk)
      redis.call('LPUSH', KEYS[2], 1)
      redis.call('PEXPIRE', KEYS[2], ARGV[2])
    else
      redis.call('ZREM', KEYS[1], chunk)
      redis.call('DEL', 'arq:in-progress:' .. chunk, 'arq:job:' .. chunk, 'arq:retry:' .. chunk)
      if outcome == 'succeeded' then
        redis.call('HDEL', header .. ':chunks', ARGV[at + 2])
      end
    end
  end
end
return released

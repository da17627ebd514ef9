-- beginning: what other scripts include to begin a batch and to queue its chunks.
-- @include queues

-- Write the header of a batch that there is none of, and list it and its queue. `more` holds further fields of it.
local function begin_batch(id, queue, options, keep_ms, more, now, lifetime, kept)
  local header, list = 'straggler:batch:' .. id, 'straggler:batches'
  redis.call('HSET', header, 'queue', queue, 'options', options, 'keep_ms', keep_ms, 'total', 0, 'closed', 0,
    'done', 0, 'taken', 0, 'success', 0, 'timeout', 0, 'failure', 0, 'cancelled', 0, 'lost', 0, 'created_at', now)
  for field, value in pairs(more) do redis.call('HSET', header, field, value) end
  redis.call('PEXPIRE', header, lifetime)
  redis.call('ZADD', list, now, id)
  redis.call('ZREMRANGEBYRANK', list, 0, -1 - kept)
  redis.call('PEXPIRE', list, lifetime)
  list_queue(queue, now, lifetime)
end

-- Put a chunk where workers find it; the lifetimes of both hashes are the caller's.
local function queue_chunk(id, queue, first, payload, jobs, now_ms, lifetime)
  local chunk = id .. ':' .. first
  redis.call('HSET', 'straggler:batch:' .. id .. ':chunks', first, jobs)
  redis.call('SET', 'arq:job:' .. chunk, payload, 'PX', lifetime)
  redis.call('ZADD', 'straggler:queue:' .. queue, now_ms, chunk)
end

-- finishing: what other scripts include to let go of a chunk whose jobs are all over.
-- @include crashes
-- @include lapsing

-- Forget a chunk: its place in the queue, its keys of arq's and, where all its jobs have "succeeded", what they were.
-- Never fails, as what was done before it in the same call would be taken for not done.
local function finish(queue, chunk, header, first, outcome)
  ask('ZREM', queue, chunk)
  ask('ZREM', leases_of(queue), chunk)
  redis.call('DEL', 'arq:in-progress:' .. chunk, 'arq:job:' .. chunk, 'arq:retry:' .. chunk)
  ask('HDEL', header .. ':holders', chunk)
  if outcome == 'succeeded' then ask('HDEL', header .. ':chunks', first) end
end

-- alive: take note of a worker that says that it lives, and tell it whether it is to leave. Safe to call twice.
-- One call in place of six: an idle worker sends Redis little else.
-- Reads and writes: KEYS 1 what the worker says of itself, 2 the live workers of its queue, 3 whether it is to drain;
--      the list of queues
-- ARGV 1 worker id, 2 lifetime ms, 3 its queue, 4 lifetime of a queue's place in the list ms,
--      then names and values of what it says
-- Returns {1 if it is to drain, else 0, Redis' time in s, in us}
-- @include queues
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.6f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.6f', now - ARGV[2] / 1000))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
list_queue(ARGV[3], now, ARGV[4])
return {redis.call('EXISTS', KEYS[3]), tonumber(time[1]), tonumber(time[2])}

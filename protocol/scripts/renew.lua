-- renew: hold on to leases that are still this worker's. Safe to call twice.
-- Reads and writes: KEYS 1 queue; its leases; of each chunk its in-progress key
-- ARGV 1 worker id, 2 lease ms, then chunk ids
-- Returns {Redis' time in s, in us, then the ids whose lease was lost}
-- @include lapsing
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local reply = {tonumber(time[1]), tonumber(time[2])}
for at = 3, #ARGV do
  local lease = 'arq:in-progress:' .. ARGV[at]
  if redis.pcall('GET', lease) == ARGV[1] then
    redis.call('PEXPIRE', lease, ARGV[2])
    -- Where another kind of value stands for the queue, that takes no lease from anybody.
    redis.pcall('ZADD', KEYS[1], 'XX', until_ms, ARGV[at])
    redis.pcall('ZADD', leases_of(KEYS[1]), 'XX', until_ms, ARGV[at])
  else
    table.insert(reply, ARGV[at])
  end
end
return reply

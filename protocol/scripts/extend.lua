-- extend: give a batch another deadline, and let its workers know. Safe to call twice: the options that the header has are
-- compared with those that the caller has read, so what was done is not done again, and two callers do not mix.
-- Reads and writes: KEYS 1 header
-- ARGV 1 options as they were read (JSON), 2 options as they shall be (JSON), 3 the new deadline, Unix s
-- Returns 1 if the batch has that deadline now, 0 if the options were others, -1 if there is no such batch, -2 if it is
--      complete, -3 if its deadline has passed, -4 if it was cancelled
-- @include orders
local fields = redis.call('HMGET', KEYS[1], 'options', 'deadline', 'finished_at', 'cancelled_at')
if not fields[1] then return -1 end
if fields[3] then return -2 end
if fields[1] == ARGV[2] and fields[2] == ARGV[3] then return 1 end
if fields[4] then return -4 end
local time = redis.call('TIME')
local deadline = tonumber(fields[2] or '')
if deadline and time[1] + time[2] / 1000000 >= deadline then return -3 end
if fields[1] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'options', ARGV[2], 'deadline', ARGV[3])
announce(KEYS[1])
return 1

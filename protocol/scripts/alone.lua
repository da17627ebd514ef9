-- alone: say which job of a chunk runs now, alone in a process of its own, so that whoever finds the lease lapsed knows whom to
-- blame. Safe to call twice.
-- Reads and writes: KEYS 1 in-progress key of the chunk, 2 holders
-- ARGV 1 worker id, 2 chunk id, 3 index of the job ("": all of them may run from now on), 4 lifetime of an open batch ms
-- Returns 1, or 0 if the chunk is no longer this worker's
-- @include crashes
if ask('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local holder = ARGV[1]
if ARGV[3] ~= '' then holder = string.format('%s %d %d', ARGV[1], ARGV[3], ARGV[3] + 1) end
put('HSET', KEYS[2], ARGV[2], holder)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1

-- record: keep the first result of each job, for ever. Safe to call twice: what has its result is passed over.
-- Reads and writes: KEYS 1 header, 2 done, 3 results, 4 chunks
-- ARGV 1 common fields (JSON), 2 lifetime of an open batch ms, then for each result: index, status, row (JSON)
-- Returns how many were recorded, or -1 if there is no such batch (deleted, or past its lifetime)
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end

-- One BITFIELD sets the bits of the whole group and tells which were set before (a SETBIT a job was most of the cost).
local set = {}
for at = 3, #ARGV, 3 do
  table.insert(set, 'SET')
  table.insert(set, 'u1')
  table.insert(set, '#' .. ARGV[at])
  table.insert(set, 1)
end
local was_set = redis.call('BITFIELD', KEYS[2], unpack(set))

local rows, counts = {}, {}
for job = 1, #was_set do
  if was_set[job] == 0 then
    local status = ARGV[job * 3 + 1]
    counts[status] = (counts[status] or 0) + 1
    table.insert(rows, ARGV[job * 3 + 2])
  end
end
if #rows == 0 then return 0 end

redis.call('XADD', KEYS[3], '*', 'common', ARGV[1], 'rows', '[' .. table.concat(rows, ',') .. ']')
for status, count in pairs(counts) do redis.call('HINCRBY', KEYS[1], status, count) end
local done = redis.call('HINCRBY', KEYS[1], 'done', #rows)
local header = redis.call('HMGET', KEYS[1], 'total', 'closed', 'keep_ms')
local lifetime = ARGV[2]
if header[2] == '1' and done == tonumber(header[1]) then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'finished_at', time[1] .. '.' .. string.format('%06d', time[2]))
  redis.call('XADD', KEYS[3], '*', 'end', done)
  lifetime = header[3]
  redis.call('PEXPIRE', KEYS[1], lifetime)
  redis.call('PEXPIRE', KEYS[4], lifetime)
end
redis.call('PEXPIRE', KEYS[2], lifetime)
redis.call('PEXPIRE', KEYS[3], lifetime)
return #rows

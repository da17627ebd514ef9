-- record: keep the first result of each job, for ever. Safe to call twice: what has its result is passed over.
-- Reads and writes: KEYS 1 header, 2 done, 3 results, 4 chunks; of a batch that ends what ending.lua says
-- ARGV 1 common fields (JSON), 2 lifetime of an open batch ms, 3 indexes joined by ",", 4 statuses joined by ",",
--      5 rows (JSON objects) joined by ",\n": JSON escapes line breaks, so the joint stands nowhere else
--      6 1 if no worker had these jobs: then they were never counted as taken
-- Returns how many were recorded, or -1 if there is no such batch (deleted, or past its lifetime)
-- @include ending
local header = redis.call('HMGET', KEYS[1], 'total', 'closed')
if not header[1] then return -1 end
-- Fails where no stream stands there, before a bit is set that would keep the result out for ever.
redis.call('XLEN', KEYS[3])

-- One BITFIELD sets the bits of the whole group and tells which were set before (a SETBIT a job was most of the cost).
local set, jobs = {}, 0
for index in string.gmatch(ARGV[3], '%d+') do
  set[jobs * 4 + 1], set[jobs * 4 + 2], set[jobs * 4 + 3], set[jobs * 4 + 4] = 'SET', 'u1', '#' .. index, 1
  jobs = jobs + 1
end
local was_set = redis.call('BITFIELD', KEYS[2], unpack(set))

local counts, new, job = {}, 0, 0
for status in string.gmatch(ARGV[4], '%a+') do
  job = job + 1
  if was_set[job] == 0 then
    new = new + 1
    counts[status] = (counts[status] or 0) + 1
  end
end
if new == 0 then return 0 end

local rows = ARGV[5]
if new < jobs then
  local kept, from = {}, 1
  for at = 1, jobs do
    local till = string.find(rows, ',\n', from, true) or #rows + 1
    if was_set[at] == 0 then kept[#kept + 1] = string.sub(rows, from, till - 1) end
    from = till + 2
  end
  rows = table.concat(kept, ',\n')
end

redis.call('XADD', KEYS[3], '*', 'common', ARGV[1], 'rows', '[' .. rows .. ']')
-- Before a count that is no number may break this off: nothing is left without its lifetime.
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
for status, count in pairs(counts) do redis.call('HINCRBY', KEYS[1], status, count) end
if ARGV[6] == '1' then redis.call('HINCRBY', KEYS[1], 'taken', new) end
redis.call('HINCRBY', KEYS[1], 'done', new)
-- An open batch does not end, however many of its jobs are done.
if header[2] == '1' then end_if_complete(KEYS[1]) end
return new

-- record: keep the first result of each job, for ever, then let go of the chunks that are over with that. Safe to call
-- twice: what has its result is passed over, and so is a chunk that this worker holds no longer. So is a job that the batch
-- does not have, as Redis was restarted without its last writes: its place may be another's, who is added next.
-- Reads and writes: KEYS 1 header, 2 done, 3 results, 4 queue, if chunks are over; of each what finishing.lua says; of a
--      batch that ends what ending.lua says
-- ARGV 1 common fields (JSON), 2 lifetime of an open batch ms, 3 indexes and ranges of them ("0-97,100"),
--      4 statuses joined by ",", or the one that all have,
--      5 1 if no worker had these jobs: then they were never counted as taken,
--      6 worker id, 7 how many chunks are over, then for each: id, first index, "succeeded" or "ended" (see release.lua), and
--      how its payload says where its jobs stand, if all their results are in this call (",0,256]"; else "": it is looked up),
--      then the columns of the entry, each as its name and what it says of each job, joined by "," (numbers) or ",\n":
--      JSON escapes line breaks, so that joint stands nowhere else
-- Returns how many were recorded, or -1 if there is no such batch (deleted, or past its lifetime)
-- @include ending
-- @include tolerance
-- @include finishing
local columns = 8 + 4 * ARGV[7]

-- After all else, so that a chunk whose results could not be kept runs again.
local function let_go()
  for at = 8, columns - 1, 4 do
    local chunk = ARGV[at]
    local lease, payload = unpack(redis.call('MGET', 'arq:in-progress:' .. chunk, 'arq:job:' .. chunk))
    if lease == ARGV[6] or holds(ARGV[6], lease, (read_holder(KEYS[1], chunk))) then
      local is_all_here = payload and ARGV[at + 3] ~= '' and string.find(payload, ARGV[at + 3], 1, true)
      if is_all_here then
        finish(KEYS[4], chunk, KEYS[1], ARGV[at + 1], ARGV[at + 2])
      else
        put_back_or_finish(KEYS[4], chunk, KEYS[1], ARGV[at + 1], ARGV[at + 2], payload, ARGV[2])
      end
    else
      -- Taken for dead when its lease lapsed, it lives: that was no crash.
      forget_crash(KEYS[1], chunk, ARGV[6], ARGV[2])
    end
  end
end

local header = redis.call('HMGET', KEYS[1], 'total', 'closed', 'close_when_idle', 'max_failures')
if not header[1] then
  let_go()
  return -1
end
-- Fails where no stream stands there, before a bit is set that would keep the result out for ever.
redis.call('XLEN', KEYS[3])

-- Bits are set a piece at a time, and what was set before is kept: whole bytes, where there are eight or more, as such; all
-- others by one BITFIELD, 48 of them in each piece, as many as a Lua number can hold. A SETBIT a job was most of the cost,
-- and fakeredis copies all bits of the batch for each bit that BITFIELD sets.
local pieces, jobs, set, is_any_set, total = {}, 0, {}, false, tonumber(header[1]) or math.huge
local function set_bits(offset, stop)
  while offset <= stop do
    local width, at = math.min(48, stop - offset + 1), #set
    set[at + 1], set[at + 2], set[at + 3], set[at + 4] = 'SET', 'u' .. width, offset, string.format('%.0f', 2 ^ width - 1)
    pieces[#pieces + 1] = {width = width, field = #set / 4}
    offset = offset + width
  end
end
local function set_bytes(first, last)
  local before = redis.call('GETRANGE', KEYS[2], first, last)
  redis.call('SETRANGE', KEYS[2], first, string.rep('\255', last - first + 1))
  pieces[#pieces + 1] = {width = 8 * (last - first + 1), before = before}
  is_any_set = is_any_set or string.find(before, '[^%z]') ~= nil
end
local function pass_over(width)
  pieces[#pieces + 1] = {width = width, before = string.rep('\255', math.ceil(width / 8))}
  is_any_set = true
end
for first, last in string.gmatch(ARGV[3], '(%d+)%-?(%d*)') do
  local offset, end_stop = tonumber(first), tonumber(last) or tonumber(first)
  local stop = math.min(end_stop, math.max(offset, total) - 1)
  local byte, end_byte = math.ceil(offset / 8), math.floor((stop + 1) / 8)
  if end_byte - byte < 8 then
    set_bits(offset, stop)
  else
    set_bits(offset, 8 * byte - 1)
    set_bytes(byte, end_byte - 1)
    set_bits(8 * end_byte, stop)
  end
  if stop < end_stop then pass_over(end_stop - stop) end
  jobs = jobs + end_stop - offset + 1
end
local fields = #set > 0 and redis.call('BITFIELD', KEYS[2], unpack(set)) or {}
for _, bits in ipairs(fields) do is_any_set = is_any_set or bits ~= 0 end

-- For each job whether it had its result; looked at bit by bit only where one had.
local was_set = {}
if is_any_set then
  for _, piece in ipairs(pieces) do
    for place = 0, piece.width - 1 do
      local bits, width = fields[piece.field], piece.width
      if piece.before then
        bits, width = string.byte(piece.before, math.floor(place / 8) + 1) or 0, 8
      end
      was_set[#was_set + 1] = math.floor(bits / 2 ^ (width - 1 - place % width)) % 2 == 1
    end
  end
end

local counts, new = {}, 0
local function count(status, number)
  counts[status] = (counts[status] or 0) + number
  new = new + number
end
if is_any_set or string.find(ARGV[4], ',', 1, true) then
  local statuses = {}
  for status in string.gmatch(ARGV[4], '%a+') do statuses[#statuses + 1] = status end
  for job = 1, jobs do
    if not was_set[job] then count(statuses[job] or statuses[1], 1) end
  end
else
  count(ARGV[4], jobs)
end
if new == 0 then
  let_go()
  return 0
end

local function keep_new(column, joint)
  local kept, from = {}, 1
  for job = 1, jobs do
    local till = string.find(column, joint, from, true) or #column + 1
    if not was_set[job] then kept[#kept + 1] = string.sub(column, from, till - 1) end
    from = till + #joint
  end
  return table.concat(kept, joint)
end

local function new_indexes()
  local kept, job = {}, 0
  for first, last in string.gmatch(ARGV[3], '(%d+)%-?(%d*)') do
    for index = tonumber(first), tonumber(last) or tonumber(first) do
      job = job + 1
      if not was_set[job] then kept[#kept + 1] = string.format('%.0f', index) end
    end
  end
  return table.concat(kept, ',')
end

local entry = {'common', ARGV[1], 'indexes', is_any_set and new_indexes() or ARGV[3]}
for at = columns, #ARGV, 2 do
  local name, column = ARGV[at], ARGV[at + 1]
  if is_any_set then column = keep_new(column, (name == 'started' or name == 'took') and ',' or ',\n') end
  entry[#entry + 1], entry[#entry + 2] = name, '[' .. column .. ']'
end
redis.call('XADD', KEYS[3], '*', unpack(entry))
-- Before a count that is no number may break this off: nothing is left without its lifetime.
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
for status, number in pairs(counts) do redis.call('HINCRBY', KEYS[1], status, number) end
if ARGV[5] == '1' then redis.call('HINCRBY', KEYS[1], 'taken', new) end
local done = redis.call('HINCRBY', KEYS[1], 'done', new)
local is_closed = header[2] == '1'
if header[4] and new > (counts.success or 0) then
  is_closed = stop_if_past(KEYS[1], header[4], tonumber(header[1]), is_closed) or is_closed
end
-- None of its jobs is left that could add to it.
if header[3] and not is_closed and done == tonumber(header[1]) then
  is_closed = redis.call('HSET', KEYS[1], 'closed', 1)
end
-- An open batch does not end, however many of its jobs are done. To ask of each record was 3 us of it.
if is_closed and done == tonumber(header[1]) then end_if_complete(KEYS[1]) end
let_go()
return new

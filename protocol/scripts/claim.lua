-- claim: lease due chunks that nobody holds, in queue order, as many jobs of them as a worker has room for.
-- A chunk with more jobs than that is cut: what is taken is a chunk of its own, and the rest stays in the queue as another.
-- So is one that would be taken whole, so that few jobs share what becomes of a chunk. What was run before stays in one.
-- A leased chunk's due time moves to the end of its lease, so chunks in progress are never looked at again before that:
-- they cost a claim nothing and starve nothing behind them. A chunk whose lease has lapsed is one whose worker died: it is
-- put back where it stood, as its batch would wait else for all that has come since.
-- Safe to call twice: the same token gets the same chunks again, and no others.
-- Reads and writes: KEYS 1 queue, 2 wake, 3 the worker's last claim; the queue's leases; of each chunk its arq keys, and its
--      batch's header, chunks, done bits, holders, crashes and retries
-- ARGV 1 worker id, 2 lease ms, 3 jobs that there is room for, 4 how many of these are as good as over: a chunk of no more
--      jobs is taken whole; 5 jobs of a piece, if there is room for so many, 6 1 if a chunk that cannot be cut may be
--      taken, however many jobs it has, 7 most chunks, 8 most jobs, 9 lifetime of an open batch ms, 10 token, 11 the one
--      chunk to take, whoever holds its lease ("": those that are due), 12 jobs that there is room for in processes, 13
--      jobs of a piece of these, 14 names of the functions that need one, a line each ("": there are none), 15 how far into
--      what is due to look for others, too, where those cannot be taken (-1: no farther than at its head)
-- Returns {Redis' time in s, in us, ms until the next chunk is due (-1: none), jobs of a due chunk that did not fit (0), 1 if
--          there is room yet, and what is due needs processes; how many chunks were found behind that; how far to look next time,
--          then for each chunk: {id, payload, options, deadline, jobs, done bits from the byte of its first job,
--          crashes, what was decided since (see orders.lua), then index and failures of each retried job}}
-- @include crashes
-- @include history
-- @include kinds
-- @include lapsing
-- @include orders
-- @include payloads
-- @include splitting
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local worker, lease_ms, lifetime, token = ARGV[1], ARGV[2], ARGV[9], ARGV[10]
local room, soon_over, may_exceed = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6] == '1'
local most_chunks, jobs_left = tonumber(ARGV[7]), tonumber(ARGV[8])
local plain_room, plain_piece, plain_names, look_from = tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[14], tonumber(ARGV[15])
local taken, claimed, did_not_fit = {}, {}, 0
-- Chunks that were passed over, as they need processes; the batches that they are of; whether there are any.
local passed, passed_batches, is_waiting, others, MOST_LOOKED_AT = 0, {}, false, 0, 128
-- Longer than 64 bytes: so Redis keeps the holders as a table, not as a list to look through (8 us a claim with 200 of them).
local holder = string.format('%-65s', worker)
-- Large enough that a claim brings all that there is room for.
local largest_piece = math.max(tonumber(ARGV[5]), math.ceil(math.min(room, jobs_left) / most_chunks))

local leases = leases_of(KEYS[1])

local function look_again(chunk, due_ms)
  redis.call('ZADD', KEYS[1], due_ms, chunk)
  put('ZADD', leases, due_ms, chunk)
end

local function forget(chunk)
  redis.call('ZREM', KEYS[1], chunk)
  ask('ZREM', leases, chunk)
  redis.call('DEL', 'arq:job:' .. chunk, 'arq:retry:' .. chunk, 'arq:in-progress:' .. chunk)
end

-- What is looked up of a batch, once a claim: of 16 chunks of one batch that was half of Redis' time.
local batches = {}
local function look_up(id)
  if not batches[id] then
    local header = 'straggler:batch:' .. id
    local fields = ask('HMGET', header, 'options', 'deadline', 'total', 'finished_at', 'control') or {}
    local has_run = redis.call('EXISTS', header .. ':retries', header .. ':crashes') > 0
    batches[id] = {
      id = id, header = header, options = fields[1], deadline = fields[2], total = tonumber(fields[3]), is_over = fields[4],
      has_orders = fields[5], has_retries = has_run and redis.call('EXISTS', header .. ':retries') == 1,
      has_crashes = has_run and redis.call('EXISTS', header .. ':crashes') == 1, new = 0,
    }
  end
  return batches[id]
end

-- What the payload says of the chunk, or nil where it is not ours.
local function read(id, payload)
  local chunk = read_payload(id, payload)
  if not chunk then return nil end
  chunk.batch = look_up(chunk.batch)
  -- Results of jobs that the batch does not have would keep it from its end.
  if chunk.batch.total and chunk.first + chunk.count > chunk.batch.total then return nil end
  return chunk
end

-- Write a chunk's payload anew where another's bytes stand, or none: its name and its batch tell all of it but the time.
local function restore(id, time_ms)
  local batch, first, index = string.match(id, '^([%w_.-]+):(%d+)%+?(%d*)$')
  if not batch then return nil end
  local ok, jobs = pcall(cjson.decode, ask('HGET', 'straggler:batch:' .. batch .. ':chunks', first) or '')
  if not ok or type(jobs) ~= 'table' then return nil end
  if type(jobs.args) == 'table' then jobs = jobs.args end
  local payload = write_payload(batch, tonumber(first), #jobs, tonumber(index), time_ms)
  local chunk = read(id, payload)
  if not chunk or not chunk.batch.options or chunk.batch.is_over then return nil end
  redis.call('SET', 'arq:job:' .. id, payload, 'PX', lifetime)
  return chunk
end

-- Lease a chunk; whoever held it before and has not let go of it has died under it.
local function take(chunk)
  local batch, crashes = chunk.batch, chunk.crashes
  batch.is_taken = true
  if chunk.holder and chunk.holder ~= worker then
    crashes = note_crash(batch.header, chunk.id, {
      worker = chunk.holder, start = chunk.held_start or chunk.start, stop = chunk.held_stop or chunk.stop,
      ending = 'no sign of life', doubtful = true, ended_at = now,
    }, lifetime)
    batch.has_crashes = true
  end
  -- Those that were cancelled while they waited are counted as taken already.
  if not chunk.holder then batch.new = batch.new + chunk.jobs - (batch.has_orders and done_of(chunk) or 0) end
  -- From the second crash on it must be said which job is at work; so far none is.
  if not batch.is_over then
    put('HSET', batch.header .. ':holders', chunk.id, #crashes >= 2 and worker .. ' 0 0' or holder)
  end
  redis.call('SET', 'arq:in-progress:' .. chunk.id, worker, 'PX', lease_ms)
  look_again(chunk.id, now_ms + lease_ms)
  table.insert(claimed, describe(chunk, lifetime))
  table.insert(taken, chunk.id)
  room, jobs_left = room - chunk.jobs, jobs_left - chunk.jobs
  if chunk.is_plain then plain_room = plain_room - chunk.jobs end
end

-- A worker whose lease has lapsed may live, and have been cut off or held up: it is missed for a moment before its chunk
-- is taken for one under which it has died.
local function miss(chunk)
  if not chunk.holder or chunk.holder == worker or chunk.is_missed then return false end
  local holders = chunk.batch.header .. ':holders'
  redis.call('HSET', holders, chunk.id, '?' .. redis.call('HGET', holders, chunk.id))
  look_again(chunk.id, now_ms + math.floor(lease_ms * 0.15))
  return true
end

-- How many jobs there is room for of a chunk's kind, how many jobs a chunk may have that is taken whole, and a piece of one.
local function limits_of(chunk)
  if not chunk.is_plain then return room, math.max(room, soon_over), largest_piece end
  local left = math.min(room, plain_room)
  return left, left, math.max(plain_piece, math.ceil(left / most_chunks))
end

-- Whether a chunk is to be cut: it has more jobs than a piece or than there is room for, and none has run before.
local function is_too_large(chunk)
  local _, whole, piece = limits_of(chunk)
  return (chunk.jobs > piece or chunk.jobs > whole) and not chunk.holder and #chunk.crashes == 0 and #chunk.retried == 0
    and done_of(chunk) == 0 and chunk.id == string.format('%s:%d', chunk.batch.id, chunk.first)
end

local function write_chunk(chunk, first, count, text)
  local batch, enqueued_ms = chunk.batch, chunk.enqueued_ms
  local id, payload = string.format('%s:%d', batch.id, first), write_payload(batch.id, first, count, nil, enqueued_ms)
  redis.call('HSET', batch.header .. ':chunks', string.format('%d', first), text)
  redis.call('SET', 'arq:job:' .. id, payload, 'PX', lifetime)
  return {
    id = id, payload = payload, batch = batch, first = first, count = count, jobs = count, start = first, stop = first + count,
    text = text, done = '', crashes = {}, retried = {}, is_plain = chunk.is_plain,
  }
end

-- Take as many pieces of a chunk as there is room for, and leave the rest where it stood; false if it cannot be cut.
local function take_pieces(chunk, due_ms)
  local batch, first, left = chunk.batch, chunk.first, chunk.count
  local rest = chunk.text or ask('HGET', batch.header .. ':chunks', string.format('%d', first))
  local fits, _, piece = limits_of(chunk)
  while rest and left > 0 and fits > 0 and jobs_left > 0 and #taken < most_chunks do
    local size, text = math.min(piece, fits, jobs_left, left), rest
    if size < left then text, rest = cut_text(rest, size) end
    if not text then break end
    take(write_chunk(chunk, first, size, text))
    first, left, fits = first + size, left - size, limits_of(chunk)
  end
  if first == chunk.first then return false end
  if left > 0 then redis.call('ZADD', KEYS[1], due_ms, write_chunk(chunk, first, left, rest).id) end
  is_waiting = is_waiting or (chunk.is_plain and left > 0)
  return true
end

-- What needs processes that are all busy lets others pass: what follows of its batch is of its kind, as a rule.
local function pass_over(batch_id)
  passed, is_waiting, passed_batches[batch_id] = passed + 1, true, true
  return true
end

-- Returns, as take_one does, whether it is worth while to look at the next one.
local function take_if_it_fits(chunk, due_ms)
  chunk.is_plain = is_plain(chunk, chunk.batch.header, plain_names)
  if chunk.is_plain and plain_room < 1 then return pass_over(chunk.batch.id) end
  if is_too_large(chunk) and take_pieces(chunk, due_ms) then return room > 0 end
  local fits, whole = limits_of(chunk)
  if chunk.jobs > fits and chunk.jobs > whole and not may_exceed then
    did_not_fit = chunk.jobs
    return false
  end
  if miss(chunk) then return true end
  if chunk.jobs > jobs_left or (chunk.jobs > fits and #taken > 0) then return false end
  take(chunk)
  return room > 0
end

local function take_one(id, due_ms)
  local batch_id = string.match(id, '^([^:]+):')
  if passed_batches[batch_id] then return pass_over(batch_id) end
  local payload = ask('GET', 'arq:job:' .. id)
  local held = redis.call('PTTL', 'arq:in-progress:' .. id)
  local chunk = payload and read(id, payload) or restore(id, now_ms)
  if held > 0 then
    look_again(id, now_ms + held)
  elseif not chunk or not chunk.batch.options then
    forget(id)
    if payload and not chunk then table.insert(claimed, {id, payload}) end
  else
    look_into(chunk)
    return take_if_it_fits(chunk, due_ms)
  end
  return true
end

-- Look at what is due; returns whether there is more. What was looked at is due no longer, or passed over, or nothing behind
-- it is looked at.
local function look(from, most)
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'WITHSCORES', 'LIMIT', from, most)
  for at = 1, #due, 2 do
    if not take_one(due[at], due[at + 1]) then return false end
  end
  return #due == 2 * most
end

-- Look at the queue's head: at four chunks, as most claims take one or two (to read 16 takes 15 us more), then at the rest;
-- where it needs processes also farther on, by and by. Where that has found something, the next look begins there, too.
local function take_due()
  put_back_lapsed(KEYS[1], now_ms, most_chunks)
  if not (look(0, 4) and look(passed, most_chunks - 4)) or passed == 0 or look_from < 0 then return end
  local before, from = #taken, math.max(look_from, passed)
  local has_more = look(from, MOST_LOOKED_AT)
  others = #taken - before
  if others == 0 then look_from = has_more and from + MOST_LOOKED_AT or 0 end
end

local function find(id)
  local payload = ask('GET', 'arq:job:' .. id)
  local chunk = payload and read(id, payload)
  if not chunk or not chunk.batch.options then return nil end
  look_into(chunk)
  return chunk
end

local function take_again(ids)
  for _, id in ipairs(ids) do
    local chunk = find(id)
    if chunk and ask('GET', 'arq:in-progress:' .. id) == worker then table.insert(claimed, describe(chunk, lifetime)) end
  end
end

local function take_named(id)
  local chunk = find(id)
  if chunk then chunk.is_plain = is_plain(chunk, chunk.batch.header, plain_names) end
  if chunk and not (is_too_large(chunk) and take_pieces(chunk, now_ms)) then take(chunk) end
end

-- Count what was taken of each batch. A finished one has its lifetime: a header that outlives its results would keep their
-- collectors waiting.
local function count_taken()
  for _, batch in pairs(batches) do
    if batch.new ~= 0 then ask('HINCRBY', batch.header, 'taken', batch.new) end
    if batch.is_taken and not batch.is_over then
      ask('PEXPIRE', batch.header .. ':holders', lifetime)
      redis.call('PEXPIRE', batch.header, lifetime)
      redis.call('PEXPIRE', batch.header .. ':chunks', lifetime)
      redis.call('PEXPIRE', batch.header .. ':origins', lifetime)
    end
  end
end

if ARGV[11] ~= '' then
  take_named(ARGV[11])
else
  local ok, last = pcall(cjson.decode, ask('GET', KEYS[3]) or '[]')
  if ok and type(last) == 'table' and last.token == token then
    take_again(last.chunks)
  else
    take_due()
    -- Without room: a claim of this token that is still on its way takes nothing, either.
    if #taken > 0 or room == 0 then redis.call('SET', KEYS[3], cjson.encode({token = token, chunks = taken}), 'PX', lease_ms) end
  end
end
count_taken()
ask('PEXPIRE', leases, lifetime)

local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local next_due = -1
if head[2] then next_due = math.max(0, tonumber(head[2]) - now_ms) end
if next_due == 0 then
  wake_one(KEYS[2], lifetime)
else
  redis.call('DEL', KEYS[2])
end
local has_room = room > 0 and jobs_left > 0 and #taken < most_chunks
local told = {tonumber(time[1]), tonumber(time[2]), next_due, did_not_fit, is_waiting and has_room and 1 or 0, others, look_from}
for _, chunk in ipairs(claimed) do told[#told + 1] = chunk end
return told

-- claim: lease due chunks that nobody holds, in queue order, as many jobs of them as a worker has room for.
-- A chunk with more jobs than that is cut: what is taken is a chunk of its own, and the rest stays in the queue as another.
-- So is one that would be taken whole, so that few jobs share what becomes of a chunk. What was run before stays in one.
-- A leased chunk's due time moves to the end of its lease, so chunks in progress are never looked at again before that:
-- they cost a claim nothing and starve nothing behind them. A chunk whose lease has lapsed is one whose worker died: it is
-- put back where it stood, as its batch would wait else for all that has come since.
-- Safe to call twice: the same token gets the same chunks again, and no others.
-- Reads and writes: KEYS 1 queue, 2 wake, 3 the worker's last claim; the queue's leases; of each chunk its arq keys, and its batch's header,
--      chunks, done bits, holders, crashes and retries
-- ARGV 1 worker id, 2 lease ms, 3 jobs that there is room for, 4 how many of these are as good as over: a chunk of no more
--      jobs is taken whole; 5 jobs of a piece, if there is room for so many, 6 1 if a chunk that cannot be cut may be
--      taken, however many jobs it has, 7 most chunks, 8 most jobs, 9 lifetime of an open batch ms, 10 token, 11 the one
--      chunk to take, whoever holds its lease ("": those that are due)
-- Returns {Redis' time in s, in us, ms until the next chunk is due (-1: none), jobs of a due chunk that did not fit (0),
--          then for each chunk: {id, payload, options, deadline, jobs, done bits from the byte of its first job,
--          crashes, what was decided since (see orders.lua), then index and failures of each retried job}}
-- @include crashes
-- @include lapsing
-- @include orders
-- @include splitting
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local worker, lease_ms, lifetime, token = ARGV[1], ARGV[2], ARGV[9], ARGV[10]
local room, soon_over, may_exceed = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6] == '1'
local most_chunks, jobs_left = tonumber(ARGV[7]), tonumber(ARGV[8])
local taken, claimed, did_not_fit = {}, {}, 0
-- Longer than 64 bytes: so Redis keeps the holders as a table, not as a list to look through (8 us a claim with 200 of them).
local holder = string.format('%-65s', worker)
local LARGEST_CHUNK = 1000
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

local function is_index(number)
  return type(number) == 'number' and number >= 0 and number % 1 == 0
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
local function read(chunk, payload)
  local ok, job = pcall(cjson.decode, payload)
  if not ok or type(job) ~= 'table' or type(job.a) ~= 'table' or type(job.et) ~= 'number' then return nil end
  local id, first, count, index = job.a[1], job.a[2], job.a[3], job.a[4]
  if job.f ~= 'straggler_chunk' or type(id) ~= 'string' then return nil end
  if not is_index(first) or not is_index(count) or count < 1 or count > LARGEST_CHUNK then return nil end
  if index ~= nil and not (is_index(index) and index >= first and index < first + count) then return nil end
  local batch = look_up(id)
  -- Results of jobs that the batch does not have would keep it from its end.
  if batch.total and first + count > batch.total then return nil end
  return {
    id = chunk, payload = payload, batch = batch, first = first, count = count, index = index, enqueued_ms = job.et,
    jobs = index and 1 or count, start = index or first, stop = (index or first + count - 1) + 1,
  }
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

-- Index and failures of each of a chunk's jobs that runs again.
local function read_retried(chunk)
  local retried, indexes = {}, {}
  for index = chunk.start, chunk.stop - 1 do table.insert(indexes, string.format('%d', index)) end
  for at, failures in ipairs(ask('HMGET', chunk.batch.header .. ':retries', unpack(indexes)) or {}) do
    if failures then
      table.insert(retried, tonumber(indexes[at]))
      table.insert(retried, failures)
    end
  end
  return retried
end

-- What is known of a chunk's earlier runs.
local function look_into(chunk)
  local batch = chunk.batch
  chunk.holder, chunk.held_start, chunk.held_stop, chunk.is_missed = read_holder(batch.header, chunk.id)
  chunk.crashes = batch.has_crashes and read_crashes(batch.header, chunk.id) or {}
  chunk.retried = batch.has_retries and read_retried(chunk) or {}
  chunk.done = ask('GETRANGE', batch.header .. ':done', math.floor(chunk.first / 8), math.floor((chunk.first + chunk.count) / 8))
end

local function count_done(chunk)
  local count, from = 0, chunk.first - chunk.first % 8
  for at = 1, #(chunk.done or '') do
    local byte = string.byte(chunk.done, at)
    for place = 0, byte == 0 and -1 or 7 do
      local index = from + (at - 1) * 8 + place
      if index >= chunk.start and index < chunk.stop and math.floor(byte / 2 ^ (7 - place)) % 2 == 1 then count = count + 1 end
    end
  end
  return count
end

local function describe(chunk)
  local batch = chunk.batch
  local told = {
    chunk.id, chunk.payload, batch.options, batch.deadline,
    chunk.text or ask('HGET', batch.header .. ':chunks', string.format('%d', chunk.first)), chunk.done,
    batch.has_crashes and ask('HGET', batch.header .. ':crashes', chunk.id),
    batch.has_orders and read_orders(batch.header, chunk.id, chunk.start, chunk.stop, '', lifetime),
  }
  -- Some commands' replies may be nil inside a table only as false.
  for at = 1, 8 do told[at] = told[at] or false end
  for _, value in ipairs(chunk.retried) do table.insert(told, value) end
  return told
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
  if not chunk.holder then batch.new = batch.new + chunk.jobs - (batch.has_orders and count_done(chunk) or 0) end
  -- From the second crash on it must be said which job is at work; so far none is.
  if not batch.is_over then
    put('HSET', batch.header .. ':holders', chunk.id, #crashes >= 2 and worker .. ' 0 0' or holder)
  end
  redis.call('SET', 'arq:in-progress:' .. chunk.id, worker, 'PX', lease_ms)
  look_again(chunk.id, now_ms + lease_ms)
  table.insert(claimed, describe(chunk))
  table.insert(taken, chunk.id)
  room, jobs_left = room - chunk.jobs, jobs_left - chunk.jobs
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

-- Whether a chunk is to be cut: it has more jobs than a piece or than there is room for, and none has run before.
local function is_too_large(chunk)
  return (chunk.jobs > largest_piece or chunk.jobs > math.max(room, soon_over)) and not chunk.holder and #chunk.crashes == 0 and #chunk.retried == 0
    and count_done(chunk) == 0 and chunk.id == string.format('%s:%d', chunk.batch.id, chunk.first)
end

local function write_chunk(batch, first, count, text, enqueued_ms)
  local id, payload = string.format('%s:%d', batch.id, first), write_payload(batch.id, first, count, nil, enqueued_ms)
  redis.call('HSET', batch.header .. ':chunks', string.format('%d', first), text)
  redis.call('SET', 'arq:job:' .. id, payload, 'PX', lifetime)
  return {
    id = id, payload = payload, batch = batch, first = first, count = count, jobs = count, start = first, stop = first + count,
    text = text, done = '', crashes = {}, retried = {},
  }
end

-- Take as many pieces of a chunk as there is room for, and leave the rest where it stood; false if it cannot be cut.
local function take_pieces(chunk, due_ms)
  local batch, first, left = chunk.batch, chunk.first, chunk.count
  local rest = ask('HGET', batch.header .. ':chunks', string.format('%d', first))
  while rest and left > 0 and room > 0 and jobs_left > 0 and #taken < most_chunks do
    local size, text = math.min(largest_piece, room, jobs_left, left), rest
    if size < left then text, rest = cut_text(rest, size) end
    if not text then break end
    take(write_chunk(batch, first, size, text, chunk.enqueued_ms))
    first, left = first + size, left - size
  end
  if first == chunk.first then return false end
  if left > 0 then redis.call('ZADD', KEYS[1], due_ms, write_chunk(batch, first, left, rest, chunk.enqueued_ms).id) end
  return true
end

-- Returns, as take_one does, whether it is worth while to look at the next one.
local function take_if_it_fits(chunk, due_ms)
  if is_too_large(chunk) and take_pieces(chunk, due_ms) then return room > 0 end
  if chunk.jobs > room and chunk.jobs > soon_over and not may_exceed then
    did_not_fit = chunk.jobs
    return false
  end
  if miss(chunk) then return true end
  if chunk.jobs > jobs_left or (chunk.jobs > room and #taken > 0) then return false end
  take(chunk)
  return room > 0
end

local function take_one(id, due_ms)
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

-- What is no longer in the queue is only dropped.
local function put_back_lapsed()
  local lapsed = ask('ZRANGEBYSCORE', leases, '-inf', now_ms, 'LIMIT', 0, most_chunks) or {}
  for _, id in ipairs(lapsed) do
    redis.call('ZADD', KEYS[1], 'XX', place_of(id, now_ms), id)
    redis.call('ZREM', leases, id)
  end
end

-- Look at the queue's head: at four chunks, as most claims take one or two (to read 16 takes 15 us more), then at the rest.
-- What was looked at is no longer due, or nothing behind it is looked at.
local function take_due()
  put_back_lapsed()
  for _, most in ipairs({4, most_chunks - 4}) do
    local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'WITHSCORES', 'LIMIT', 0, most)
    for at = 1, #due, 2 do
      if not take_one(due[at], due[at + 1]) then return end
    end
    if #due < 2 * most then return end
  end
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
    if chunk and ask('GET', 'arq:in-progress:' .. id) == worker then table.insert(claimed, describe(chunk)) end
  end
end

local function take_named(id)
  local chunk = find(id)
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
return {tonumber(time[1]), tonumber(time[2]), next_due, did_not_fit, unpack(claimed)}

-- claim: lease due chunks that nobody holds, in queue order, as many as fit into the worker's free slots.
-- A leased chunk's due time moves to the end of its lease, so chunks in progress are never looked at again before that:
-- they cost a claim nothing and starve nothing behind them. A chunk whose lease has lapsed is one whose worker died.
-- Safe to call twice: the same token gets the same chunks again, and no others.
-- Reads and writes: KEYS 1 queue, 2 wake, 3 the worker's last claim; of each chunk its arq keys, and its batch's header,
--      chunks, done bits, holders, crashes and retries
-- ARGV 1 worker id, 2 lease ms, 3 free slots, 4 1 if a chunk that needs more than the free slots may be taken,
--      5 most chunks, 6 most jobs, 7 lifetime of an open batch ms, 8 token, 9 the one chunk to take, whoever holds its
--      lease ("": those that are due)
-- Returns {Redis' time in s, in us, ms until the next chunk is due (-1: none), jobs of a due chunk that did not fit (0),
--          then for each chunk: {id, payload, options, deadline, jobs, done bits from the byte of its first job,
--          crashes, what was decided since (see orders.lua), then index and failures of each retried job}}
-- @include crashes
-- @include orders
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local worker, lease_ms, lifetime, token = ARGV[1], ARGV[2], ARGV[7], ARGV[8]
local free, may_exceed = tonumber(ARGV[3]), ARGV[4] == '1'
local most_chunks, jobs_left = tonumber(ARGV[5]), tonumber(ARGV[6])
local claimed, did_not_fit = {}, 0
local LARGEST_CHUNK = 1000

local function forget(chunk)
  redis.call('ZREM', KEYS[1], chunk)
  redis.call('DEL', 'arq:job:' .. chunk, 'arq:retry:' .. chunk, 'arq:in-progress:' .. chunk)
end

local function is_index(number)
  return type(number) == 'number' and number >= 0 and number % 1 == 0
end

-- What the payload says of the chunk, or nil where it is not ours.
local function read(chunk, payload)
  local ok, job = pcall(cjson.decode, payload)
  if not ok or type(job) ~= 'table' or type(job.a) ~= 'table' or type(job.et) ~= 'number' then return nil end
  local batch, first, count, index = job.a[1], job.a[2], job.a[3], job.a[4]
  if job.f ~= 'straggler_chunk' or type(batch) ~= 'string' then return nil end
  if not is_index(first) or not is_index(count) or count < 1 or count > LARGEST_CHUNK then return nil end
  if index ~= nil and not (is_index(index) and index >= first and index < first + count) then return nil end
  local header = 'straggler:batch:' .. batch
  local fields = ask('HMGET', header, 'options', 'deadline', 'total', 'finished_at', 'control') or {}
  -- Results of jobs that the batch does not have would keep it from its end.
  local total = tonumber(fields[3])
  if total and first + count > total then return nil end
  return {
    id = chunk, payload = payload, header = header,
    first = first, count = count, jobs = index and 1 or count, start = index or first, stop = (index or first + count - 1) + 1,
    options = fields[1], deadline = fields[2], is_over = fields[4], has_orders = fields[5],
  }
end

-- Write a chunk's payload anew where another's bytes stand, or none: its name and its batch tell all of it but the time.
local function restore(id, time_ms)
  local batch, first, index = string.match(id, '^([%w_.-]+):(%d+)%+?(%d*)$')
  if not batch then return nil end
  local ok, jobs = pcall(cjson.decode, ask('HGET', 'straggler:batch:' .. batch .. ':chunks', first) or '')
  if not ok or type(jobs) ~= 'table' then return nil end
  if type(jobs.args) == 'table' then jobs = jobs.args end
  local where = string.format('"%s",%s,%d', batch, first, #jobs)
  if index ~= '' then where = where .. ',' .. index end
  local payload = string.format('{"t":null,"f":"straggler_chunk","a":[%s],"k":{},"et":%.0f}', where, time_ms)
  local chunk = read(id, payload)
  if not chunk or not chunk.options or chunk.is_over then return nil end
  redis.call('SET', 'arq:job:' .. id, payload, 'PX', lifetime)
  return chunk
end

local function describe(chunk)
  local told = {
    chunk.id, chunk.payload, chunk.options, chunk.deadline,
    ask('HGET', chunk.header .. ':chunks', string.format('%d', chunk.first)),
    ask('GETRANGE', chunk.header .. ':done', math.floor(chunk.first / 8), math.floor((chunk.first + chunk.count) / 8)),
    ask('HGET', chunk.header .. ':crashes', chunk.id),
    chunk.has_orders and read_orders(chunk.header, chunk.id, chunk.start, chunk.stop, '', lifetime),
  }
  -- Some commands' replies may be nil inside a table only as false.
  for at = 1, 8 do told[at] = told[at] or false end
  if redis.call('EXISTS', chunk.header .. ':retries') == 1 then
    local indexes = {}
    for index = chunk.start, chunk.stop - 1 do table.insert(indexes, string.format('%d', index)) end
    local failures = ask('HMGET', chunk.header .. ':retries', unpack(indexes)) or {}
    for at, count in ipairs(failures) do
      if count then
        table.insert(told, tonumber(indexes[at]))
        table.insert(told, count)
      end
    end
  end
  return told
end

local function count_done(chunk)
  local count = 0
  for index = chunk.start, chunk.stop - 1 do
    if ask('GETBIT', chunk.header .. ':done', index) == 1 then count = count + 1 end
  end
  return count
end

-- Lease a chunk; whoever held it before and has not let go of it has died under it.
local function take(chunk)
  local holder, start, stop = read_holder(chunk.header, chunk.id)
  local crashes = read_crashes(chunk.header, chunk.id)
  if holder and holder ~= worker then
    crashes = note_crash(chunk.header, chunk.id, {
      worker = holder, start = start or chunk.start, stop = stop or chunk.stop, ending = 'no sign of life', doubtful = true, ended_at = now,
    }, lifetime)
  end
  -- Those that were cancelled while they waited are counted as taken already.
  if not holder then ask('HINCRBY', chunk.header, 'taken', chunk.jobs - (chunk.has_orders and count_done(chunk) or 0)) end
  -- A finished batch has its lifetime: a header that outlives its results would keep their collectors waiting.
  if not chunk.is_over then
    -- From the second crash on it must be said which job is at work; so far none is.
    put('HSET', chunk.header .. ':holders', chunk.id, #crashes >= 2 and worker .. ' 0 0' or worker)
    ask('PEXPIRE', chunk.header .. ':holders', lifetime)
    redis.call('PEXPIRE', chunk.header, lifetime)
    redis.call('PEXPIRE', chunk.header .. ':chunks', lifetime)
    redis.call('PEXPIRE', chunk.header .. ':origins', lifetime)
  end
  redis.call('SET', 'arq:in-progress:' .. chunk.id, worker, 'PX', lease_ms)
  redis.call('ZADD', KEYS[1], now_ms + lease_ms, chunk.id)
end

-- A worker whose lease has lapsed may live, and have been cut off or held up: it is missed for a moment before its chunk
-- is taken for one under which it has died.
local function miss(chunk)
  local holder, _, _, is_missed = read_holder(chunk.header, chunk.id)
  if not holder or holder == worker or is_missed then return false end
  redis.call('HSET', chunk.header .. ':holders', chunk.id, '?' .. redis.call('HGET', chunk.header .. ':holders', chunk.id))
  redis.call('ZADD', KEYS[1], now_ms + math.floor(lease_ms * 0.15), chunk.id)
  return true
end

local function take_due()
  local taken = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, most_chunks)) do
    local payload = ask('GET', 'arq:job:' .. id)
    local held = redis.call('PTTL', 'arq:in-progress:' .. id)
    local chunk = payload and read(id, payload) or restore(id, now_ms)
    if held > 0 then
      redis.call('ZADD', KEYS[1], now_ms + held, id)
    elseif (chunk and not chunk.options) or not (chunk or payload) then
      forget(id)
    elseif not chunk then
      forget(id)
      table.insert(claimed, {id, payload})
    elseif chunk.jobs > free and not may_exceed then
      did_not_fit = chunk.jobs
      break
    elseif miss(chunk) then
      -- it is due again soon
    elseif chunk.jobs > jobs_left or (chunk.jobs > free and #taken > 0) then
      break
    else
      take(chunk)
      table.insert(claimed, describe(chunk))
      table.insert(taken, id)
      free, jobs_left = free - chunk.jobs, jobs_left - chunk.jobs
      if free <= 0 then break end
    end
  end
  return taken
end

local function take_again(taken)
  for _, id in ipairs(taken) do
    local payload = ask('GET', 'arq:job:' .. id)
    local chunk = payload and read(id, payload)
    if chunk and ask('GET', 'arq:in-progress:' .. id) == worker then table.insert(claimed, describe(chunk)) end
  end
end

local function take_named(id)
  local payload = ask('GET', 'arq:job:' .. id)
  local chunk = payload and read(id, payload)
  if chunk and chunk.options then
    take(chunk)
    table.insert(claimed, describe(chunk))
  end
end

if ARGV[9] ~= '' then
  take_named(ARGV[9])
else
  local ok, last = pcall(cjson.decode, ask('GET', KEYS[3]) or '[]')
  if ok and type(last) == 'table' and last.token == token then
    take_again(last.chunks)
  else
    local taken = take_due()
    -- Without room: a claim of this token that is still on its way takes nothing, either.
    if #taken > 0 or ARGV[3] == '0' then redis.call('SET', KEYS[3], cjson.encode({token = token, chunks = taken}), 'PX', lease_ms) end
  end
end

local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local next_due = -1
if head[2] then next_due = math.max(0, tonumber(head[2]) - now_ms) end
if next_due == 0 then
  wake_one(KEYS[2], lifetime)
else
  redis.call('DEL', KEYS[2])
end
return {tonumber(time[1]), tonumber(time[2]), next_due, did_not_fit, unpack(claimed)}

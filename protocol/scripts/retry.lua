-- retry: let failed jobs run again later, each as a chunk of its own: one of arq's deferred jobs.
-- Safe to call twice: a failure that is counted already is passed over, and so is a job that has its result.
-- Reads and writes: KEYS 1 queue, 2 wake; the queue's leases; of each job the arq keys of its chunks, and its batch's header, done bits,
--      holders, crashes, retries and attempts
-- ARGV 1 worker id, 2 lifetime of an open batch ms, then for each job: its batch id, the chunk in which it failed, index,
--      failures so far, delay ms, the chunk in which it runs again, that one's payload, and how the attempt ended (JSON)
-- Returns how many will run again
-- @include crashes
-- @include lapsing
-- @include orders
-- @include places
local worker, lifetime = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- The deaths under a job go with it; those under its old chunk from now on are none of its own.
local function take_crashes_along(header, held, chunk, index)
  local under = {}
  for _, crash in ipairs(read_crashes(header, held)) do
    local start, stop = nil, nil
    if type(crash) == 'table' then start, stop = tonumber(crash.start), tonumber(crash.stop) end
    if start and stop and start <= index and index < stop then table.insert(under, crash) end
  end
  if #under > 0 then write_crashes(header, chunk, under, lifetime) end
end

-- The jobs by their batches, in order: what is looked up or written of a batch, or of a chunk, is so once for all of them.
local batches, headers = {}, {}
for at = 3, #ARGV, 8 do
  local header = 'straggler:batch:' .. ARGV[at]
  if not batches[header] then
    batches[header] = {header = header, indexes = {}, jobs = {}}
    headers[#headers + 1] = header
  end
  local batch = batches[header]
  batch.indexes[#batch.indexes + 1] = ARGV[at + 2]
  batch.jobs[#batch.jobs + 1] = {
    held = ARGV[at + 1], index = ARGV[at + 2], failures = tonumber(ARGV[at + 3]), delay = ARGV[at + 4], chunk = ARGV[at + 5],
    payload = ARGV[at + 6], attempt = ARGV[at + 7],
  }
end

-- Which jobs of a chunk are this worker's to let run again, start <= index < stop; none where the lease is lost: whoever has it
-- now runs them, too, and says what becomes of them. Restarted without its last writes, Redis may have cut the chunk elsewhere
-- since.
local function range_held(header, held)
  local lease, payload = unpack(redis.call('MGET', 'arq:in-progress:' .. held, 'arq:job:' .. held))
  if not holds(worker, lease, (read_holder(header, held))) then return {start = 0, stop = 0} end
  local start, stop = range_of(payload)
  return {start = start or 0, stop = stop or math.huge}
end

-- Those of a batch's jobs that run again.
local function choose(batch)
  local header, chosen, ranges = batch.header, {}, {}
  local known = ask('HMGET', header .. ':retries', unpack(batch.indexes)) or {}
  local counted = {}
  for at, job in ipairs(batch.jobs) do
    local held, index = job.held, job.index
    ranges[held] = ranges[held] or range_held(header, held)
    local is_held = ranges[held].start <= tonumber(index) and tonumber(index) < ranges[held].stop
    local failures = counted[index] or tonumber(known[at] or 0) or 0
    if is_held and failures < job.failures and ask('GETBIT', header .. ':done', index) ~= 1 then
      counted[index] = job.failures
      chosen[#chosen + 1] = job
    end
  end
  return chosen
end

local function note_failures(header, jobs)
  local counts, indexes, lines = {}, {}, {}
  for at, job in ipairs(jobs) do
    counts[2 * at - 1], counts[2 * at] = job.index, job.failures
    indexes[at], lines[job.index] = job.index, job.attempt
  end
  put('HSET', header .. ':retries', unpack(counts))
  redis.call('PEXPIRE', header .. ':retries', lifetime)
  attempts().note(header, indexes, lines, lifetime)
end

local function leave_chunks(header, jobs)
  local has_crashes = redis.call('EXISTS', header .. ':crashes') == 1
  for _, job in ipairs(jobs) do
    if job.held == job.chunk then
      redis.call('DEL', 'arq:in-progress:' .. job.held, 'arq:retry:' .. job.held)
      ask('HDEL', header .. ':holders', job.held)
      ask('ZREM', leases_of(KEYS[1]), job.held)
    elseif has_crashes then
      take_crashes_along(header, job.held, job.chunk, tonumber(job.index))
    end
  end
  ask('HINCRBY', header, 'taken', -#jobs)
end

local function queue_again(header, jobs)
  local has_orders, places = ask('HGET', header, 'control'), {}
  for at, job in ipairs(jobs) do
    redis.call('SET', 'arq:job:' .. job.chunk, job.payload, 'PX', lifetime)
    -- One that was cancelled meanwhile comes back at once, to be given its result.
    local delay = has_orders and is_refused(header, job.index) and 0 or job.delay
    places[2 * at - 1], places[2 * at] = now_ms + delay, job.chunk
  end
  redis.call('ZADD', KEYS[1], unpack(places))
end

-- Fails where no queue stands there, before a failure is counted that would keep the job out of it for ever.
redis.call('ZCARD', KEYS[1])
local deferred = 0
for _, header in ipairs(headers) do
  local jobs = redis.call('EXISTS', header) == 1 and choose(batches[header]) or {}
  if #jobs > 0 then
    note_failures(header, jobs)
    leave_chunks(header, jobs)
    queue_again(header, jobs)
    deferred = deferred + #jobs
  end
end
-- Who sleeps until the next chunk is due must hear that another may be due before.
if deferred > 0 then
  redis.call('PEXPIRE', KEYS[1], lifetime)
  wake_one(KEYS[2], lifetime)
end
return deferred

-- claim: lease due chunks that nobody holds, in queue order, as many as fit into the worker's free slots.
-- A leased chunk's due time moves to the end of its lease, so chunks in progress are never looked at again before that:
-- they cost a claim nothing and starve nothing behind them.
-- Reads and writes: KEYS 1 queue, 2 wake; of each chunk its arq keys, and its batch's header, chunks and done bits
-- ARGV 1 worker id, 2 lease ms, 3 free slots, 4 1 if a chunk that needs more than the free slots may be taken,
--      5 most chunks, 6 most jobs, 7 lifetime of an open batch ms
-- Returns {Redis' time in s, in us, ms until the next chunk is due (-1: none), jobs of a due chunk that did not fit (0),
--          then for each chunk: {id, payload, attempt, options, jobs, done bits from the byte of its first job}}
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local free, may_exceed = tonumber(ARGV[3]), ARGV[4] == '1'
local most_chunks, jobs_left = tonumber(ARGV[5]), tonumber(ARGV[6])
local claimed, did_not_fit = {}, 0

local function forget(chunk)
  redis.call('ZREM', KEYS[1], chunk)
  redis.call('DEL', 'arq:job:' .. chunk, 'arq:retry:' .. chunk, 'arq:in-progress:' .. chunk)
end

-- What a key holds, or false where another kind of value stands: one spoilt key must not hold up the whole queue.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return false end
  return reply
end

-- What the payload says of the chunk, or nil where it is not ours.
local function read(payload)
  local ok, job = pcall(cjson.decode, payload)
  if not ok or type(job) ~= 'table' or type(job.a) ~= 'table' then return nil end
  local batch, first, count = job.a[1], tonumber(job.a[2]), tonumber(job.a[3])
  if type(batch) ~= 'string' or not first or not count or first < 0 or count < 1 then return nil end
  return batch, first, count
end

for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, most_chunks)) do
  local payload = ask('GET', 'arq:job:' .. chunk)
  local held = redis.call('PTTL', 'arq:in-progress:' .. chunk)
  local batch, first, count = nil, 0, 0
  if payload then batch, first, count = read(payload) end
  count = count or 0
  if held > 0 then
    redis.call('ZADD', KEYS[1], now_ms + held, chunk)
  elseif not payload then
    forget(chunk)
  elseif batch and count > free and not may_exceed then
    did_not_fit = count
    break
  elseif batch and (count > jobs_left or (count > free and #claimed > 0)) then
    break
  else
    local header = 'straggler:batch:' .. (batch or '')
    local options = batch and ask('HGET', header, 'options') or false
    if batch and not options then
      forget(chunk)
    else
      local jobs, bits, attempt = false, false, ask('INCR', 'arq:retry:' .. chunk) or 1
      if batch then
        jobs = ask('HGET', header .. ':chunks', first)
        bits = ask('GETRANGE', header .. ':done', math.floor(first / 8), math.floor((first + count) / 8))
        if attempt == 1 then ask('HINCRBY', header, 'taken', count) end
        -- A finished batch has its lifetime: a header that outlives its results would keep their collectors waiting.
        if redis.call('HEXISTS', header, 'finished_at') == 0 then
          redis.call('PEXPIRE', header, ARGV[7])
          redis.call('PEXPIRE', header .. ':chunks', ARGV[7])
        end
      end
      redis.call('PEXPIRE', 'arq:retry:' .. chunk, ARGV[7])
      redis.call('SET', 'arq:in-progress:' .. chunk, ARGV[1], 'PX', ARGV[2])
      redis.call('ZADD', KEYS[1], now_ms + ARGV[2], chunk)
      free, jobs_left = free - count, jobs_left - count
      table.insert(claimed, {chunk, payload, attempt, options, jobs, bits})
      if free <= 0 then break end
    end
  end
end

local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local next_due = -1
if head[2] then next_due = math.max(0, tonumber(head[2]) - now_ms) end
if next_due == 0 then
  if redis.call('LLEN', KEYS[2]) == 0 then
    redis.call('LPUSH', KEYS[2], 1)
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
  end
else
  redis.call('DEL', KEYS[2])
end
return {tonumber(time[1]), tonumber(time[2]), next_due, did_not_fit, unpack(claimed)}

-- orders: what other scripts include to decide something about a batch after its submission, and to tell it to its workers.
-- The header's field `control` numbers such decisions; `stopped` says why no more jobs start, `deadline` when time is up.
-- batch:<id>:cancelled holds index -> reason, or "*" -> reason for all jobs; batch:<id>:heard chunk -> the last decision of
-- which the worker that holds the chunk knows.

-- @include ranges

-- Hint to all workers that they look at a batch. A user who may not publish breaks nothing off: they look by themselves, too.
local function hint(header)
  redis.pcall('PUBLISH', 'straggler:control', cjson.encode({batch = string.sub(header, #'straggler:batch:' + 1)}))
end

-- Number a decision, and hint to all workers that there is one: what it is they read here. The number is the time, in ms: a
-- Redis that was restarted without its last writes would count to one again of which workers have heard already.
local function announce(header)
  local time, last = redis.call('TIME'), tonumber(redis.call('HGET', header, 'control') or '') or 0
  local version = math.max(last + 1, time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', header, 'control', string.format('%.0f', version))
  hint(header)
  return version
end

-- What was decided for a chunk's jobs, start <= index < stop, and note that its worker knows; false if `known` is all.
-- {decisions, deadline, why no more jobs start, why all are cancelled, then index and reason of each that is}
local function read_orders(header, chunk, start, stop, known, lifetime)
  local fields = ask('HMGET', header, 'control', 'deadline', 'stopped', 'finished_at')
  if not fields or not fields[1] or fields[1] == known then return false end
  if not fields[4] then
    put('HSET', header .. ':heard', chunk, fields[1])
    redis.call('PEXPIRE', header .. ':heard', lifetime)
  end
  local told = {fields[1], fields[2], fields[3], ask('HGET', header .. ':cancelled', '*')}
  for _, said in ipairs(read_range(header .. ':cancelled', start, stop)) do table.insert(told, said) end
  return told
end

-- Whether a job is not to start any more.
local function is_refused(header, index)
  local fields = ask('HMGET', header, 'control', 'stopped') or {}
  if not fields[1] then return false end
  return fields[2] or ask('HEXISTS', header .. ':cancelled', index) == 1
end

-- spoilt: what other scripts include to live with keys where something else stands than what we put there.

-- What a key holds, or false where another kind of value stands: one spoilt key must not hold up the whole queue.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return false end
  return reply
end

-- Write to a key of our book-keeping; another kind of value that stands there makes way, as it tells nothing.
local function put(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  -- What else went wrong, such as a full memory, goes wrong again, and is raised.
  if string.find(reply.err, 'WRONGTYPE', 1, true) then redis.call('DEL', key) end
  return redis.call(command, key, ...)
end

-- Wake one idle worker; tokens never pile up.
local function wake_one(key, lifetime)
  if put('LLEN', key) == 0 then
    redis.call('LPUSH', key, 1)
    redis.call('PEXPIRE', key, lifetime)
  end
end

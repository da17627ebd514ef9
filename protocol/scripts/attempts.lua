-- attempts: what other scripts include to keep a job's attempts that did not become its result.
-- Field <index> of batch:<id>:attempts holds them, oldest first: each a JSON object (protocol/attempts.py), and a line break
-- behind it. Field `bytes` tells how long all of them are.

-- @include spoilt

-- A batch that is deleted or has ended keeps no account: what was written then would outlive it.
local function goes_on(header)
  local fields = ask('HMGET', header, 'options', 'finished_at')
  return fields and fields[1] and not fields[2]
end

-- What is done to attempts. Made only where one is to be noted: each function here would cost every call of every script
-- that includes them some 30 ns.
local function attempts()
  -- Of a job its first attempt is kept and its last ones; of a batch no more than so many bytes, some 150,000 attempts.
  local MOST_OF_A_JOB, MOST_BYTES = 20, 33554432

  -- Let `change` say for each job what is kept of its attempts, of what is so far.
  local function change_attempts(header, indexes, change, lifetime)
    local key = header .. ':attempts'
    if #indexes == 0 or not goes_on(header) then return end
    local known, changed, more = ask('HMGET', key, unpack(indexes)) or {}, {}, 0
    for at, index in ipairs(indexes) do
      local before = known[at] or ''
      local after = change(before, index)
      if after ~= before then
        more = more + #after - #before
        changed[#changed + 1], changed[#changed + 2] = index, after
      end
    end
    if #changed == 0 then return end
    local bytes = tonumber(ask('HGET', key, 'bytes') or '') or 0
    if more > 0 and bytes + more > MOST_BYTES then return end
    put('HSET', key, 'bytes', string.format('%d', bytes + more), unpack(changed))
    redis.call('PEXPIRE', key, lifetime)
  end

  local function add_line(known, line)
    line = line .. '\n'
    -- A script that is sent twice tells it twice.
    if string.find(known, line, 1, true) then return known end
    local _, count = string.gsub(known, '\n', '\n')
    if count >= MOST_OF_A_JOB then known = string.gsub(known, '^([^\n]*\n)[^\n]*\n', '%1') end
    return known .. line
  end

  -- Note of each job how an attempt ended; `lines` tells it by index.
  local function note_attempts(header, indexes, lines, lifetime)
    change_attempts(header, indexes, function(known, index) return add_line(known, lines[index]) end, lifetime)
  end

  -- The jobs of a chunk, start <= index < stop, that have no result and have not left it to run again; and for each that has
  -- failed how often.
  local function open_jobs(header, chunk, start, stop)
    local indexes, failures, open = {}, {}, {}
    -- No chunk is larger.
    for index = start, math.min(stop, start + 1000) - 1 do indexes[#indexes + 1] = string.format('%d', index) end
    if #indexes == 0 then return open, failures end
    if redis.call('EXISTS', header .. ':retries') == 1 then
      local counts = ask('HMGET', header .. ':retries', unpack(indexes)) or {}
      for at, index in ipairs(indexes) do failures[index] = tonumber(counts[at] or '') end
    end
    local from, is_own = math.floor(start / 8), string.find(chunk, '+', 1, true)
    local bits = ask('GETRANGE', header .. ':done', from, math.floor((stop - 1) / 8)) or ''
    for _, index in ipairs(indexes) do
      local byte = string.byte(bits, math.floor(index / 8) - from + 1) or 0
      local is_done = math.floor(byte / 2 ^ (7 - index % 8)) % 2 == 1
      if not is_done and (is_own or not failures[index]) then open[#open + 1] = index end
    end
    return open, failures
  end

  local function without_death(known, worker)
    local name, kept = '"worker":' .. cjson.encode(worker) .. ',', {}
    for line in string.gmatch(known, '[^\n]+\n') do
      local is_its = string.find(line, '"status":"died"', 1, true) and string.find(line, name, 1, true)
      if not is_its then kept[#kept + 1] = line end
    end
    return table.concat(kept)
  end

  -- Note for each job that a worker had, as far as is known, that it has died under it; `others` are the chunk's crashes but this.
  local function note_deaths(header, chunk, crash, others, lifetime)
    local indexes, failures = open_jobs(header, chunk, crash.start, crash.stop)
    local function describe(index)
      local number = 1 + (failures[index] or 0)
      for _, other in ipairs(others) do
        local is_under = (tonumber(other.start) or 0) <= tonumber(index) and tonumber(index) < (tonumber(other.stop) or 0)
        if is_under and not other.doubtful then number = number + 1 end
      end
      local started = tonumber(crash.started_at) and string.format(',"started_at":%.6f', crash.started_at) or ''
      return string.format(
        '{"attempt":%d,"worker":%s,"status":"died","ending":%s,"doubtful":%s%s,"finished_at":%.6f}', number,
        cjson.encode(crash.worker), cjson.encode(crash.ending), tostring(crash.doubtful == true), started,
        tonumber(crash.ended_at) or 0
      )
    end
    change_attempts(header, indexes, function(known, index) return add_line(known, describe(index)) end, lifetime)
  end

  -- A worker that was taken for dead lives, or how it died is now known.
  local function forget_deaths(header, crash, lifetime)
    local start, stop, indexes = tonumber(crash.start), tonumber(crash.stop), {}
    if not start or not stop then return end
    for index = start, math.min(stop, start + 1000) - 1 do indexes[#indexes + 1] = string.format('%d', index) end
    change_attempts(header, indexes, function(known) return without_death(known, crash.worker) end, lifetime)
  end

  return {note = note_attempts, note_deaths = note_deaths, forget_deaths = forget_deaths}
end

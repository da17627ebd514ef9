-- finishing: what other scripts include to let go of a chunk: to forget it, or to put it back into the queue.
-- A Redis that was restarted without its last writes may know less than the chunk's worker: not of all results, not of a job
-- that has left to run again, not that the chunk was cut. A job of which it does not know what has become runs again.
-- @include crashes
-- @include lapsing
-- @include places

-- Whether a job of a chunk has no result, and has not left it to run again; if there is none, whether one has left.
local function has_open_jobs(header, chunk, start, stop)
  local from, last = math.floor(start / 8), math.floor((stop - 1) / 8)
  local bits = redis.pcall('GETRANGE', header .. ':done', from, last)
  if type(bits) ~= 'string' then return false end
  bits = bits .. string.rep('\0', last - from + 1 - #bits)
  local at, may_have_left, has_left = string.find(bits, '[^\255]'), not string.find(chunk, '+', 1, true), false
  while at do
    local byte, index = string.byte(bits, at), 8 * (from + at - 1)
    for place = math.max(start - index, 0), math.min(stop - index, 8) - 1 do
      if math.floor(byte / 2 ^ (7 - place)) % 2 == 0 then
        has_left = may_have_left and ask('HEXISTS', header .. ':retries', string.format('%d', index + place)) == 1
        if not has_left then return true end
      end
    end
    at = string.find(bits, '[^\255]', at + 1)
  end
  return false, has_left
end

-- Put a chunk back into the queue, where it stood.
local function put_back(queue, chunk, header, jobs, lifetime)
  local time = redis.call('TIME')
  -- Fails where no queue stands there, before anything is changed.
  redis.call('ZADD', queue, place_of(chunk, time[1] * 1000 + math.floor(time[2] / 1000)), chunk)
  redis.call('PEXPIRE', queue, lifetime)
  redis.call('DEL', 'arq:in-progress:' .. chunk)
  ask('ZREM', leases_of(queue), chunk)
  if ask('HDEL', header .. ':holders', chunk) == 1 then ask('HINCRBY', header, 'taken', -jobs) end
  wake_one('straggler:wake:' .. string.sub(queue, #'straggler:queue:' + 1), lifetime)
end

-- Forget a chunk: its place in the queue, its keys of arq's and, where all its jobs have "succeeded", what they were.
-- Never fails, as what was done before it in the same call would be taken for not done.
local function finish(queue, chunk, header, first, outcome)
  ask('ZREM', queue, chunk)
  ask('ZREM', leases_of(queue), chunk)
  redis.call('DEL', 'arq:in-progress:' .. chunk, 'arq:job:' .. chunk, 'arq:retry:' .. chunk)
  ask('HDEL', header .. ':holders', chunk)
  if outcome == 'succeeded' then ask('HDEL', header .. ':chunks', first) end
end

-- Put a chunk back that has open jobs, else finish it; one whose worker does not know that a job has left it keeps what its
-- jobs were. Of a batch that is gone or has ended nothing runs again; nor where no result can be kept, as nothing would come
-- of it, time and again. Never fails, as `finish`.
local function put_back_or_finish(queue, chunk, header, first, outcome, payload, lifetime)
  local start, stop = range_of(payload)
  local is_open, has_left = false, false
  if start then is_open, has_left = has_open_jobs(header, chunk, start, stop) end
  if is_open and goes_on(header) and ask('XLEN', header .. ':results') then
    pcall(put_back, queue, chunk, header, stop - start, lifetime)
  else
    finish(queue, chunk, header, first, has_left and 'ended' or outcome)
  end
end

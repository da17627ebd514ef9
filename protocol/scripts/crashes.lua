-- crashes: what other scripts include to keep account of the workers that have died under a chunk.
-- Field <chunk> of batch:<id>:crashes is a JSON array, an object for each dead worker:
--   {worker, start, stop (the jobs under which it died: start <= index < stop), ending, doubtful (its lease has lapsed, or
--   the job was in a process of its own, so it may have been another's doing), started_at, ended_at (Unix s)}
-- What that means for each of these jobs is noted among its attempts.
-- Field <chunk> of batch:<id>:holders names who has taken the chunk and not let go of it: "<worker>", or
--   "<worker> <start> <stop>" while only these jobs of it run; blanks may follow. It outlives the lease: so a lapsed one is
--   known. A "?" before it says that the lease was found lapsed, and that its worker has a moment yet to say that it lives.

-- @include spoilt
-- @include attempts

-- Whether a worker holds a chunk: by its lease, or, if that has lapsed, as nobody has taken the chunk since.
local function holds(worker, lease, holder)
  return lease == worker or (not lease and holder == worker)
end

local function read_crashes(header, chunk)
  local ok, crashes = pcall(cjson.decode, ask('HGET', header .. ':crashes', chunk) or '[]')
  if not ok or type(crashes) ~= 'table' then return {} end
  return crashes
end

local function write_crashes(header, chunk, crashes, lifetime)
  if #crashes == 0 then
    ask('HDEL', header .. ':crashes', chunk)
  elseif goes_on(header) then
    put('HSET', header .. ':crashes', chunk, cjson.encode(crashes))
    ask('PEXPIRE', header .. ':crashes', lifetime)
  end
end

-- A worker dies once, however often that is told; who dies with no job at work has died under none.
local function note_crash(header, chunk, crash, lifetime)
  local crashes = {}
  for _, known in ipairs(read_crashes(header, chunk)) do
    if type(known) == 'table' and known.worker ~= crash.worker then
      table.insert(crashes, known)
    elseif type(known) == 'table' then
      attempts().forget_deaths(header, known, lifetime)
    end
  end
  if crash.start < crash.stop then
    attempts().note_deaths(header, chunk, crash, crashes, lifetime)
    table.insert(crashes, crash)
  end
  write_crashes(header, chunk, crashes, lifetime)
  return crashes
end

local function forget_crash(header, chunk, worker, lifetime)
  if redis.call('EXISTS', header .. ':crashes') == 1 then
    note_crash(header, chunk, {worker = worker, start = 0, stop = 0}, lifetime)
  end
end

-- Who holds a chunk: worker, and the jobs at work, start <= index < stop, where they are known, and whether it is missed.
local function read_holder(header, chunk)
  local holder = ask('HGET', header .. ':holders', chunk)
  if not holder then return nil end
  local mark, worker, jobs = string.match(holder, '^(%??)(%S+)(.*)$')
  local start, stop = string.match(jobs or '', '^ (%d+) (%d+)$')
  return worker, tonumber(start), tonumber(stop), mark == '?'
end

-- release: let go of chunks that this worker has taken: of finished ones, and of those that another shall run.
-- Safe to call twice: a chunk that this worker holds no longer is passed over.
-- Reads and writes: KEYS 1 queue, 2 wake; the queue's leases; of each chunk its arq keys, and its batch's header, chunks,
--      holders, crashes, attempts
-- ARGV 1 worker id, 2 lifetime of an open batch ms, then for each chunk: id, batch id, first index, number of jobs, outcome:
--      "succeeded" (all jobs; forget them), "ended" (all have a result; keep them for redrive), "again" (run it elsewhere;
--      it stands in the queue where it stood)
--      and behind it, a line each, the index and the attempt (JSON) of each job that was at work, or the crash under which
--      the worker has died (JSON, see crashes.lua; run it elsewhere), `harmless` if that was no doing of these jobs
-- Returns how many were released
-- @include finishing
local worker, lifetime = ARGV[1], ARGV[2]
local released = 0

-- As many jobs are taken no longer as the claim has counted, whatever the worker knows of the chunk.
local function run_again(chunk, header, payload, jobs)
  local start, stop = range_of(payload)
  put_back(KEYS[1], chunk, header, start and stop - start or jobs, lifetime)
end

-- The worker died for another's sake, so that counts against no job.
local function note_harmless(header, chunk, crash)
  attempts().note_deaths(header, chunk, crash, read_crashes(header, chunk), lifetime)
end

local function note_attempts(header, outcome)
  local indexes, lines = {}, {}
  for index, attempt in string.gmatch(outcome, '\n(%d+) ([^\n]+)') do
    indexes[#indexes + 1], lines[index] = index, attempt
  end
  if #indexes > 0 then attempts().note(header, indexes, lines, lifetime) end
end

-- A chunk lapsed before its worker's death was known, and somebody has taken it: now it is known who died of what.
local function correct_crash(header, chunk, crash)
  for _, known in ipairs(read_crashes(header, chunk)) do
    if type(known) == 'table' and known.worker == worker then
      if tonumber(known.start) and known.stop == known.start + 1 then
        crash.start, crash.stop, crash.doubtful = known.start, known.stop, known.doubtful
      end
      if crash.harmless then
        forget_crash(header, chunk, worker, lifetime)
        note_harmless(header, chunk, crash)
      else
        note_crash(header, chunk, crash, lifetime)
      end
      return
    end
  end
end

for at = 3, #ARGV, 5 do
  local chunk, outcome = ARGV[at], ARGV[at + 4]
  local header = 'straggler:batch:' .. ARGV[at + 1]
  local lease, payload = unpack(redis.call('MGET', 'arq:in-progress:' .. chunk, 'arq:job:' .. chunk))
  local holder, start, stop = read_holder(header, chunk)
  local crash, is_again = nil, string.sub(outcome, 1, 5) == 'again'
  if string.sub(outcome, 1, 1) == '{' then crash = cjson.decode(outcome) end
  if holds(worker, lease, holder) then
    released = released + 1
    if crash and start then crash.start, crash.stop, crash.doubtful = start, stop, true end
    if crash and crash.harmless then
      note_harmless(header, chunk, crash)
    elseif crash then
      note_crash(header, chunk, crash, lifetime)
    elseif is_again then
      note_attempts(header, outcome)
    end
    -- The chunk of a batch that was deleted is forgotten, whatever became of its jobs.
    if (crash or is_again) and redis.call('EXISTS', header) == 1 then
      run_again(chunk, header, payload, tonumber(ARGV[at + 3]))
    else
      put_back_or_finish(KEYS[1], chunk, header, ARGV[at + 2], outcome, payload, lifetime)
    end
  elseif crash then
    correct_crash(header, chunk, crash)
  else
    -- Taken for dead when its lease lapsed, it lives: that was no crash.
    forget_crash(header, chunk, worker, lifetime)
    note_attempts(header, outcome)
  end
end
return released

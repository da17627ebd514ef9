-- submit: write a batch's header if there is none, append chunks, close the batch if its total is given.
-- Safe to call twice: a chunk is taken only where the batch's jobs end, so what is there already is not added again.
-- Reads and writes: KEYS 1 header, 2 chunks, 3 queue, 4 wake, 5 batches; of a batch that ends what ending.lua says
-- ARGV 1 batch id, 2 queue name, 3 options (JSON), 4 keep_results ms, 5 open lifetime ms, 6 batches kept,
--      7 how many jobs the batch has in all ("" leaves it open), 8 the batch's deadline, s from now ("" for none),
--      9 1 if the batch must be there: one that is gone in the middle of its submission is not begun anew,
--      10 further fields of a new header (JSON object),
--      then for each chunk: its first index, number of jobs, arq payload, jobs (JSON)
-- Returns {jobs that the batch has now (or nothing is changed, and -1: it is gone, -2: its header is not ours, -3: it was
--          opened to be added to, and where its jobs end is no place that a submission could know),
--          Redis' time in s, in us, 1 if the batch is closed}
-- @include beginning
-- @include ending
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now = time[1] .. '.' .. string.format('%06d', time[2])

local fields = redis.call('HMGET', KEYS[1], 'total', 'closed', 'extendable', 'deadline')
local is_new = not fields[1] and redis.call('EXISTS', KEYS[1]) == 0
if is_new then
  if ARGV[9] == '1' then return {-1, tonumber(time[1]), tonumber(time[2]), 0} end
  local more = cjson.decode(ARGV[10])
  if ARGV[8] ~= '' then more.deadline = string.format('%.6f', time[1] + time[2] / 1000000 + ARGV[8]) end
  begin_batch(ARGV[1], ARGV[2], ARGV[3], ARGV[4], more, now, ARGV[5], ARGV[6])
  fields = {'0', '0', more.extendable, more.deadline}
end

local total, closed = tonumber(fields[1] or ''), fields[2]
if not total or (closed ~= '0' and closed ~= '1') then return {-2, tonumber(time[1]), tonumber(time[2]), 0} end
local is_submission = #ARGV > 10 or (ARGV[7] ~= '' and ARGV[9] ~= '1')
if is_submission and fields[3] then return {-3, tonumber(time[1]), tonumber(time[2]), 0} end
-- No job could start any more: past its deadline a batch takes none, and its collectors give results to those it has.
local deadline = tonumber(fields[4] or '')
local is_late = deadline and tonumber(now) >= deadline
local added = 0
if closed == '0' then
  -- Fails where another type of value stands, before anything is written that would be left without its lifetime.
  redis.call('HLEN', KEYS[2])
  redis.call('ZCARD', KEYS[3])
  local tokens = redis.call('LLEN', KEYS[4])
  for at = 11, #ARGV, 4 do
    if tonumber(ARGV[at]) == total and not is_late then
      queue_chunk(ARGV[1], ARGV[2], ARGV[at], ARGV[at + 2], ARGV[at + 3], now_ms, ARGV[5])
      total = total + ARGV[at + 1]
      added = added + 1
    end
  end
  if added > 0 then
    redis.call('PEXPIRE', KEYS[2], ARGV[5])
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
    -- One token wakes one idle worker, and a claim that leaves work behind puts down the next: tokens never pile up.
    if tokens == 0 then
      redis.call('LPUSH', KEYS[4], 1)
      redis.call('PEXPIRE', KEYS[4], ARGV[5])
    end
  end
  if not is_new then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
  if is_late or (ARGV[7] ~= '' and tonumber(ARGV[7]) <= total) then closed = '1' end
  if added > 0 or closed == '1' then redis.call('HSET', KEYS[1], 'total', total, 'closed', closed) end
  -- Jobs that were just added have no result yet.
  if added == 0 and closed == '1' then end_if_complete(KEYS[1]) end
end
return {total, tonumber(time[1]), tonumber(time[2]), tonumber(closed)}

-- add: append jobs to an open batch, cut into chunks; a job whose name the batch has already is not added again.
-- Safe to call twice: named jobs are known by their names, the others by their adder's number of the call.
-- Reads and writes: KEYS 1 header, 2 chunks, 3 queue, 4 wake, 5 names; the list of queues
-- ARGV 1 batch id, 2 queue name, 3 lifetime of an open batch ms, 4 jobs in a chunk at most, 5 bytes in a chunk at most,
--      6 who adds, 7 number of this call, higher than that of the adder's last ("": all jobs have names),
--      then for each job, at most 1,000: its name ("" for none), its JSON
-- Returns {jobs that the batch has now, then the index of each job}, or nothing is changed and it returns {-1} if there is
--      no such batch, {-2} if its header is not ours, {-3, jobs that it has} if it takes no more jobs
-- @include beginning
-- @include spoilt
-- @include splitting
local fields = redis.call('HMGET', KEYS[1], 'total', 'closed', 'extendable', 'deadline')
if redis.call('EXISTS', KEYS[1]) == 0 then return {-1} end
local total = tonumber(fields[1] or '')
if not total then return {-2} end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local indexes, names, texts = {}, {}, {}

-- A call that comes again although its jobs were added: they have followed one another.
if ARGV[7] ~= '' then
  local number, first = string.match(redis.call('HGET', KEYS[5], '@' .. ARGV[6]) or '', '^(%d+) (%d+)$')
  if number == ARGV[7] then
    for at = 8, #ARGV, 2 do table.insert(indexes, first + #indexes) end
    return {total, unpack(indexes)}
  end
end

local asked = {}
for at = 8, #ARGV, 2 do table.insert(asked, ARGV[at]) end
local known = redis.call('HMGET', KEYS[5], unpack(asked))
local new = {}
for number, name in ipairs(asked) do
  local index = name ~= '' and (known[number] or new[name])
  if not index then
    index = total + #texts
    table.insert(texts, ARGV[7 + 2 * number])
    if name ~= '' then
      new[name] = index
      table.insert(names, name)
      table.insert(names, index)
    end
  end
  table.insert(indexes, tonumber(index))
end
if #texts == 0 then return {total, unpack(indexes)} end

-- Past its deadline no job could start any more.
local is_late = fields[4] and time[1] + time[2] / 1000000 >= tonumber(fields[4])
if fields[2] ~= '0' or fields[3] ~= '1' or is_late then return {-3, total} end
-- Fails where another type of value stands, before anything is written that would be left behind.
redis.call('HLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])

local function send(first, jobs)
  local payload, text = write_payload(ARGV[1], first, #jobs, nil, now_ms), '[' .. table.concat(jobs, JOINT) .. ']'
  queue_chunk(ARGV[1], ARGV[2], string.format('%d', first), payload, text, now_ms, ARGV[3])
end

local jobs, size, first = {}, 0, total
for _, text in ipairs(texts) do
  if #jobs == tonumber(ARGV[4]) or (#jobs > 0 and size + #text > tonumber(ARGV[5])) then
    send(first, jobs)
    first = first + #jobs
    jobs, size = {}, 0
  end
  table.insert(jobs, text)
  size = size + #text
end
send(first, jobs)

if ARGV[7] ~= '' then
  table.insert(names, '@' .. ARGV[6])
  table.insert(names, ARGV[7] .. ' ' .. total)
end
redis.call('HSET', KEYS[5], unpack(names))
redis.call('HSET', KEYS[1], 'total', total + #texts)
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[5]}) do redis.call('PEXPIRE', key, ARGV[3]) end
list_queue(ARGV[2], time[1] + time[2] / 1000000, ARGV[3])
wake_one(KEYS[4], ARGV[3])
return {total + #texts, unpack(indexes)}

-- ending: what other scripts include to end a batch. It ends here and nowhere else, whoever has seen to its last job: a
-- record, a close, a cancel. Call it after each write that may have been the last one.
-- @include spoilt
-- @include beginning

-- What the batch's on_complete job is told, as members of a JSON object; what does not change is in its text already.
local function describe_end(header, now)
  local members = {'"closed":true', '"finished_at":' .. now}
  local numbers = {'total', 'success', 'timeout', 'failure', 'cancelled', 'lost', 'created_at', 'deadline', 'cancelled_at'}
  for _, name in ipairs(numbers) do
    local value = redis.call('HGET', header, name)
    if tonumber(value or '') then table.insert(members, string.format('"%s":%s', name, value)) end
  end
  for _, name in ipairs({'stopped', 'parent'}) do
    local value = redis.call('HGET', header, name)
    if value then table.insert(members, string.format('"%s":%s', name, cjson.encode(value))) end
  end
  return table.concat(members, ',')
end

-- Start a batch's on_complete job, in a batch of its own; returns that one's id.
-- Field on_complete is a JSON object: jobs (the chunk, JSON; its one line break stands where the status goes), options,
-- keep_ms, lifetime_ms, kept.
local function start_callback(header, batch, time, now)
  local fields = redis.call('HMGET', header, 'queue', 'on_complete')
  local queue, told = fields[1], cjson.decode(fields[2])
  -- Fails where another type of value stands, before anything is written that would be left behind.
  redis.call('ZCARD', 'straggler:queue:' .. queue)
  redis.call('ZCARD', 'straggler:batches')
  -- The batch may have been there before, under the same id, and that one's callback may still be kept.
  local id, number = batch .. '.done', 1
  while redis.call('EXISTS', 'straggler:batch:' .. id) == 1 do
    number = number + 1
    id = batch .. '.done-' .. number
  end
  local from = string.find(told.jobs, '\n', 1, true)
  local jobs = string.sub(told.jobs, 1, from - 1) .. describe_end(header, now) .. string.sub(told.jobs, from + 1)
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local payload = string.format('{"t":null,"f":"straggler_chunk","a":["%s",0,1],"k":{},"et":%.0f}', id, now_ms)
  local one = {total = 1, closed = 1, callback_of = batch}
  begin_batch(id, queue, told.options, told.keep_ms, one, now, told.lifetime_ms, told.kept)
  queue_chunk(id, queue, 0, payload, jobs, now_ms, told.lifetime_ms)
  redis.call('PEXPIRE', 'straggler:batch:' .. id .. ':chunks', told.lifetime_ms)
  redis.call('PEXPIRE', 'straggler:queue:' .. queue, told.lifetime_ms)
  wake_one('straggler:wake:' .. queue, told.lifetime_ms)
  return id
end

-- End a batch that is closed and whose jobs all have their result, once; returns whether this call has ended it.
-- Reads and writes the batch's header, chunks, done bits, results, origins, names, attempts; removes holders, crashes, retries, cancelled,
-- heard; begins the batch of its on_complete job.
local function end_if_complete(header)
  local fields = redis.call('HMGET', header, 'closed', 'done', 'total', 'finished_at', 'keep_ms', 'on_complete')
  local done = tonumber(fields[2] or '')
  if fields[1] ~= '1' or fields[4] or not done or done ~= tonumber(fields[3] or '') then return false end
  local time = redis.call('TIME')
  local now = time[1] .. '.' .. string.format('%06d', time[2])
  redis.call('HSET', header, 'finished_at', now)
  redis.call('XADD', header .. ':results', '*', 'end', fields[3])
  if fields[6] then
    -- Whatever stands in its way, the batch has ended.
    local batch = string.sub(header, #'straggler:batch:' + 1)
    local is_started, callback = pcall(start_callback, header, batch, time, now)
    if is_started then
      redis.call('HSET', header, 'callback', callback)
    else
      redis.log(redis.LOG_WARNING, 'straggler: on_complete of batch ' .. batch .. ' cannot be started: ' .. tostring(callback))
    end
  end
  for _, name in ipairs({'', ':chunks', ':done', ':results', ':origins', ':names', ':attempts'}) do
    redis.call('PEXPIRE', header .. name, fields[5])
  end
  -- Nobody will run a job of it again: what was noted for that is over.
  redis.call('UNLINK', header .. ':holders', header .. ':crashes', header .. ':retries', header .. ':cancelled', header .. ':heard')
  return true
end

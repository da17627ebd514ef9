-- ending: what other scripts include to end a batch. It ends here and nowhere else, whoever has seen to its last job: a
-- record, a close, a cancel. Call it after each write that may have been the last one.

-- End a batch that is closed and whose jobs all have their result, once; returns whether this call has ended it.
-- Reads and writes the batch's header, chunks, done bits, results; removes holders, crashes, retries, cancelled, heard
local function end_if_complete(header)
  local fields = redis.call('HMGET', header, 'closed', 'done', 'total', 'finished_at', 'keep_ms')
  local done = tonumber(fields[2] or '')
  if fields[1] ~= '1' or fields[4] or not done or done ~= tonumber(fields[3] or '') then return false end
  local time = redis.call('TIME')
  redis.call('HSET', header, 'finished_at', time[1] .. '.' .. string.format('%06d', time[2]))
  redis.call('XADD', header .. ':results', '*', 'end', fields[3])
  for _, key in ipairs({header, header .. ':chunks', header .. ':done', header .. ':results'}) do
    redis.call('PEXPIRE', key, fields[5])
  end
  -- Nobody will run a job of it again: what was noted for that is over.
  redis.call('UNLINK', header .. ':holders', header .. ':crashes', header .. ':retries', header .. ':cancelled', header .. ':heard')
  return true
end

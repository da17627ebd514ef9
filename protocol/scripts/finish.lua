-- finish: what other scripts include to end a batch that is closed and has all its results.

-- End a batch: its keys get their last lifetime, its collectors are told by the stream's last entry.
local function finish_batch(header, total, keep_ms)
  local time = redis.call('TIME')
  redis.call('HSET', header, 'finished_at', time[1] .. '.' .. string.format('%06d', time[2]))
  redis.call('XADD', header .. ':results', '*', 'end', total)
  for _, name in ipairs({'', ':done', ':results', ':chunks'}) do redis.call('PEXPIRE', header .. name, keep_ms) end
  -- Nobody will run a job of it again: what was noted for that is over.
  redis.call('UNLINK', header .. ':holders', header .. ':crashes', header .. ':retries', header .. ':cancelled', header .. ':heard')
end

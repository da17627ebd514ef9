-- queues: what other scripts include to list a queue, so that who looks sees it whether or not a worker is there.
-- @include spoilt

-- The 1,000 queues that were last used, each for as long as an open batch lives that nobody touches. Its place is renewed
-- once an hour: that is often enough for what is kept for days, and costs a batch of one job a single look.
local function list_queue(name, now, lifetime)
  local list = 'straggler:queues'
  local listed = tonumber(ask('ZSCORE', list, name) or '')
  if listed and now - listed < 3600 then return end
  put('ZADD', list, now, name)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('%.0f', now - lifetime / 1000))
  redis.call('ZREMRANGEBYRANK', list, 0, -1001)
  redis.call('PEXPIRE', list, lifetime)
end

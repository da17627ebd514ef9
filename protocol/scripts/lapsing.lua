-- lapsing: what other scripts include to find leases that have lapsed, and chunks' places in the queue.
-- straggler:leases:<queue> holds each leased chunk by the end of its lease, ms: the queue itself has them among all that
-- has come since.

-- @include spoilt

local function leases_of(queue)
  return 'straggler:leases:' .. string.sub(queue, #'straggler:queue:' + 1)
end

-- When a chunk came, ms, which is its place in the queue; `otherwise` where nothing tells.
local function place_of(chunk, otherwise)
  return string.match(ask('GET', 'arq:job:' .. chunk) or '', '"et":(%d+)') or otherwise
end

-- Put chunks whose leases have lapsed back where they stood, `most` of them; what is no longer in the queue is only dropped.
local function put_back_lapsed(queue, now_ms, most)
  local leases = leases_of(queue)
  for _, id in ipairs(ask('ZRANGEBYSCORE', leases, '-inf', now_ms, 'LIMIT', 0, most) or {}) do
    redis.call('ZADD', queue, 'XX', place_of(id, now_ms), id)
    redis.call('ZREM', leases, id)
  end
end

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

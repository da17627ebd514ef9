-- kinds: what other scripts include to tell chunks of plain functions, whose jobs need processes, from those of others.

-- @include spoilt
-- @include splitting

-- Whether the first job that is to run in a chunk needs a process; `names` are those of all such functions, a line each.
-- Keeps the text of its jobs with it. That of a chunk whose jobs are of both kinds is told by its first: a worker gives
-- back what does not start.
local function is_plain(chunk, header, names)
  if names == '' then return false end
  chunk.text = chunk.text or ask('HGET', header .. ':chunks', string.format('%d', chunk.first)) or nil
  local text = chunk.text or ''
  if chunk.start > chunk.first then text = select(2, cut_text(text, chunk.start - chunk.first)) or text end
  local name = string.match(text, '^%[?{"function":"(.-)"')
  return name ~= nil and string.find(names, '\n' .. name .. '\n', 1, true) ~= nil
end

-- kinds: what other scripts include to tell chunks of plain functions, whose jobs need processes, from those of others.

-- @include spoilt
-- @include splitting

-- The function that the first job in the text of a chunk calls: of jobs of several kinds each row begins with its kind's
-- number. A name that holds a quotation mark is found up to that: it is none of ours.
local function first_function(text)
  local name = string.match(text, '^%[?{"function":"(.-)"')
  if name then return name end
  local kinds, number = string.match(text, '^{"kinds":%[(.-)%],"args":%[%[(%d*)')
  if not kinds then return nil end
  local names = {}
  for found in string.gmatch(kinds, '{"function":"(.-)"') do names[#names + 1] = found end
  return #names > 1 and names[(tonumber(number) or 0) + 1] or names[1]
end

-- Whether the first job that is to run in a chunk needs a process; `names` are those of all such functions, a line each.
-- Keeps the text of its jobs with it. That of a chunk whose jobs are of both kinds is told by its first: a worker gives
-- back what does not start.
local function is_plain(chunk, header, names)
  if names == '' then return false end
  chunk.text = chunk.text or ask('HGET', header .. ':chunks', string.format('%d', chunk.first)) or nil
  local text = chunk.text or ''
  if chunk.start > chunk.first then text = select(2, cut_text(text, chunk.start - chunk.first)) or text end
  local name = first_function(text)
  return name ~= nil and string.find(names, '\n' .. name .. '\n', 1, true) ~= nil
end

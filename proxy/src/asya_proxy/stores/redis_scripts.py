"""The Redis store's operations, one Lua script each: atomic, and safe to repeat with the same write id.

Every key begins with `BASE`, which ends the hash tag `{bucket:prefix}`, so that all of one prefix lies in
one slot:

    BASE n                    sorted set of all names (score 0): listings in byte order
    BASE o:<name>             hash: v version, s size, m mtime in ns, a attributes (JSON), and either
                              d the content, or u an upload id and k the lengths of its chunks (4 bytes each)
    BASE c:<upload>:<index>   a chunk, with a time to live until it is committed and after it was replaced;
                              its bytes never change, an append only adds behind them
    BASE w:<op>:<id>:<name>   the outcome of a change, for the write window

A script answers with a list: `ok` or `again` (this very change was made before) and what came of it, or
the name of a refusal. Every script that may grow memory writes its log entry first: a server that is full
refuses that, before anything else has changed. What an ACL denies is found out before the first change, too
(`failed`, the command and the server's words): a change that is denied in its middle would lose what it replaces.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

_COMMON = """
local BASE, ID, NOW, WINDOW, GRACE = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local NAMES, LOG = KEYS[1], KEYS[2]
local call = redis.call

local function object(name) return BASE .. 'o:' .. name end
local function chunk(upload, index) return BASE .. 'c:' .. upload .. ':' .. index end
local function pieces(lengths) return #lengths / 4 end
local function whole(number) return string.format('%.0f', number) end

local function again()
  local done = call('GET', LOG)
  if not done or done == '' then return nil end
  done = cmsgpack.unpack(done)
  done[1] = 'again'
  return done
end

local function reserve() call('SET', LOG, cmsgpack.pack({'ok'}), 'PX', WINDOW) end

local function finish(outcome)
  call('SET', LOG, cmsgpack.pack(outcome), 'PX', WINDOW)
  return outcome
end

-- A key that never is, and one for content that is not yet in its place.
local NOBODY, COMING = BASE .. 'c:', BASE .. 'c:' .. ID .. ':coming'
local doing = ''

local function run(command, ...)
  doing = command
  return call(command, ...)
end

-- Whether these are allowed, asked in a form that does nothing.
local function may_name() run('ZADD', NAMES, 'XX', 0, '') end
local function may_unname() run('ZREM', NAMES, '') end
local function may_expire() run('PEXPIRE', NOBODY, 1) end
local function may_set(name, version) run('HSET', object(name), 'v', version) end

-- Whatever follows the first change has been asked for before it. What fails is forgotten, by a command that has just
-- been allowed: its repeat must not be told `again`.
local function carry_out(change)
  local done, failure = pcall(change)
  if done then return nil end
  call('SET', LOG, '', 'PX', 1)
  pcall(call, 'DEL', COMING)
  return {'failed', doing, type(failure) == 'table' and failure.err or tostring(failure)}
end

local function stat(name)
  local f = call('HMGET', object(name), 'v', 's', 'm', 'a')
  return {'ok', f[1], f[2], f[3], f[4] or ''}
end

local function wrong(version, condition)
  local kind = string.sub(condition, 1, 1)
  if kind == 'a' and version then return {'exists'} end
  if kind == 'm' and version ~= string.sub(condition, 2) then return {'conflict'} end
  return nil
end

local function no_room(name)
  local at = string.find(name, '/', 1, true)
  while at do
    if call('EXISTS', object(string.sub(name, 1, at - 1))) == 1 then return {'not_directory'} end
    at = string.find(name, '/', at + 1, true)
  end
  if string.sub(name, -1) ~= '/' then
    local below = call('ZRANGEBYLEX', NAMES, '[' .. name .. '/', '(' .. name .. '0', 'LIMIT', 0, 1)
    if #below > 0 then return {'is_directory'} end
  end
  return nil
end

local function expire(upload, lengths)
  for index = 0, pieces(lengths) - 1 do run('PEXPIRE', chunk(upload, index), GRACE) end
end

local function complete(upload, lengths)
  for index = 0, pieces(lengths) - 1 do
    if call('EXISTS', chunk(upload, index)) == 0 then return false end
  end
  return true
end

local function keep(upload, lengths)
  for index = 0, pieces(lengths) - 1 do run('PERSIST', chunk(upload, index)) end
end

local function fill(key, size, attrs, data, upload, lengths)
  if upload ~= '' then
    run('HSET', key, 'v', ID, 's', size, 'm', NOW, 'u', upload, 'k', lengths)
  else
    run('HSET', key, 'v', ID, 's', size, 'm', NOW, 'd', data)
  end
  if attrs ~= '' then run('HSET', key, 'a', attrs) end
end

local function store(name, size, attrs, data, upload, lengths, version)
  keep(upload, lengths)
  if version then
    fill(COMING, size, attrs, data, upload, lengths)
    run('RENAME', COMING, object(name))
  else
    may_name()
    fill(object(name), size, attrs, data, upload, lengths)
    run('ZADD', NAMES, 0, name)
  end
end
"""

# The most frequent one, so it makes no call twice: what comes of it is known before it is done.
_PUT = """
local name, condition, attrs, size, data, upload, lengths = unpack(ARGV, 6, 12)
local done = again()
if done then return done end
local f = call('HMGET', object(name), 'v', 'u', 'k')
local version = f[1]
local refusal = wrong(version, condition) or (not version and no_room(name))
if refusal then return refusal end
if not complete(upload, lengths) then return {'swept'} end
local outcome = finish({'ok', ID, size, NOW, attrs})
return carry_out(function()
  if f[2] then may_expire() end
  store(name, size, attrs, data, upload, lengths, version)
  if f[2] then expire(f[2], f[3]) end
end) or outcome
"""

_DELETE = """
local name, condition = unpack(ARGV, 6, 7)
local done = again()
if done then return done end
local f = call('HMGET', object(name), 'v', 'u', 'k')
local version = f[1]
local refusal = wrong(version, condition) or (not version and {'absent'})
if refusal then return refusal end
return carry_out(function()
  may_unname()
  if f[2] then may_expire() end
  run('UNLINK', object(name))
  run('ZREM', NAMES, name)
  if f[2] then expire(f[2], f[3]) end
end) or finish({'ok'})
"""

_APPEND = """
local name, attrs, size, data, upload, lengths, fresh, small, most = unpack(ARGV, 6, 14)
small, most = tonumber(small), tonumber(most)
local done = again()
if done then return done end
local key = object(name)
local base = call('HGET', key, 'v')
local refusal = not base and no_room(name)
if refusal then return refusal end
if not complete(upload, lengths) then return {'swept'} end
reserve()
local failed = carry_out(function()
  if not base then return store(name, size, attrs, data, upload, lengths, base) end
  local f = call('HMGET', key, 's', 'u', 'k', 'd')
  local home, known, before, inline = f[2], f[3], f[4], not f[2]
  local total = tonumber(f[1]) + tonumber(size)
  if inline and upload == '' and total <= small then
    return run('HSET', key, 'd', before .. data, 'v', ID, 's', whole(total), 'm', NOW)
  end
  may_set(name, base)
  if inline then
    run('HDEL', NOBODY, '')
    home, known = fresh, #before > 0 and struct.pack('>I4', #before) or ''
  end
  local last = #known > 0 and struct.unpack('>I4', known, #known - 3) or most
  local fits = upload == '' and #data > 0 and last + #data <= most
  if fits then run('APPEND', LOG, '') end
  keep(upload, lengths)
  for index = 0, pieces(lengths) - 1 do
    run('RENAME', chunk(upload, index), chunk(home, pieces(known) + index))
  end
  if inline and #before > 0 then run('SET', chunk(home, 0), before) end
  if fits then
    run('APPEND', chunk(home, pieces(known) - 1), data)
    known = string.sub(known, 1, -5) .. struct.pack('>I4', last + #data)
  elseif #data > 0 then
    run('SET', chunk(home, pieces(known)), data)
    known = known .. struct.pack('>I4', #data)
  end
  run('HSET', key, 'u', home, 'k', known .. lengths, 'v', ID, 's', whole(total), 'm', NOW)
  if inline then run('HDEL', key, 'd') end
end)
if failed then return failed end
local outcome = stat(name)
if base then outcome[6] = base end
return finish(outcome)
"""

# What rename and copy have in common: `again`, both conditions, the tree.
_PAIR = """
local source, name, when_source, condition = unpack(ARGV, 6, 9)
local done = again()
if done then return done end
local from = call('HGET', object(source), 'v')
if not from then return {'absent'} end
local old = call('HMGET', object(name), 'v', 'u', 'k')
local version = old[1]
local refusal = wrong(from, when_source) or wrong(version, condition) or (not version and no_room(name))
if refusal then return refusal end
reserve()
"""

_RENAME = (
    _PAIR
    + """
return carry_out(function()
  if source ~= name then
    may_set(source, from)
    may_name()
    may_unname()
    if old[2] then may_expire() end
    run('RENAME', object(source), object(name))
    run('ZREM', NAMES, source)
    run('ZADD', NAMES, 0, name)
    if old[2] then expire(old[2], old[3]) end
  end
  run('HSET', object(name), 'v', ID)
end) or finish(stat(name))
"""
)

_COPY = (
    _PAIR
    + """
local fresh = ARGV[10]
local f = call('HMGET', object(source), 'u', 'k')
return carry_out(function()
  if source ~= name then
    may_set(source, from)
    may_name()
    if old[2] then may_expire() end
    if f[1] then
      for index = 0, pieces(f[2]) - 1 do run('COPY', chunk(f[1], index), chunk(fresh, index)) end
    end
    run('COPY', object(source), object(name), 'REPLACE')
    if f[1] then run('HSET', object(name), 'u', fresh) end
    run('ZADD', NAMES, 0, name)
    if old[2] then expire(old[2], old[3]) end
  end
  run('HSET', object(name), 'v', ID, 'm', NOW)
end) or finish(stat(name))
"""
)

_RENAME_TREE = """
local source, target = unpack(ARGV, 6, 7)
local done = again()
if done then return done end
local function below(directory, ...)
  return call('ZRANGEBYLEX', NAMES, '[' .. directory, '(' .. string.sub(directory, 1, -2) .. '0', ...)
end
local moving = below(source)
if #moving == 0 then return {'absent'} end
-- What follows the names are files and the versions that they are thought to be at: those that are not come back.
local outcome = {'ok', whole(#moving)}
for at = 8, #ARGV, 2 do
  local version, known = call('HGET', object(source .. ARGV[at]), 'v'), ARGV[at + 1]
  local is_known = version and source ~= target and (known == '' or known == version)
  if not is_known then outcome[#outcome + 1] = ARGV[at] end
end
if source == target then return outcome end
for _, name in ipairs(below(target, 'LIMIT', 0, 2)) do
  if name ~= target then return {'not_empty'} end
end
local marked = call('EXISTS', object(target)) == 1
local refusal = not marked and no_room(target)
if refusal then return refusal end
reserve()
return carry_out(function()
  local first = call('HGET', object(moving[1]), 'v')
  if first then may_set(moving[1], first) end
  may_name()
  may_unname()
  if marked then run('DEL', NOBODY) end
  for _, name in ipairs(moving) do
    local new = target .. string.sub(name, #source + 1)
    if call('EXISTS', object(name)) == 1 then
      run('RENAME', object(name), object(new))
      run('HSET', object(new), 'v', ID)
      run('ZADD', NAMES, 0, new)
    end
    run('ZREM', NAMES, name)
  end
  if marked and moving[1] ~= source then
    run('DEL', object(target))
    run('ZREM', NAMES, target)
  end
end) or finish(outcome)
"""

_SET_ATTRS = """
local name, condition, attrs = unpack(ARGV, 6, 8)
local done = again()
if done then return done end
local version = call('HGET', object(name), 'v')
local refusal = wrong(version, condition) or (not version and {'absent'})
if refusal then return refusal end
reserve()
return carry_out(function() run('HSET', object(name), 'v', ID, 'a', attrs) end) or finish(stat(name))
"""

# Has no write id: BASE, prefix, `/` or nothing, least, beyond, limit. Answers `more` and rows.
_LIST = """
local BASE, prefix, delimiter, least, beyond, limit = unpack(ARGV)
limit = tonumber(limit)
local rows, count = {}, 0
while true do
  local names = redis.call('ZRANGEBYLEX', KEYS[1], least, beyond, 'LIMIT', 0, limit + 1 - count)
  local folded = false
  for _, name in ipairs(names) do
    if count == limit then return {1, rows} end
    count = count + 1
    local at = delimiter ~= '' and string.find(name, delimiter, #prefix + 1, true)
    if at then
      rows[count] = {string.sub(name, 1, at)}
      least = '[' .. string.sub(name, 1, at - 1) .. '0'
      folded = true
      break
    end
    local f = redis.call('HMGET', BASE .. 'o:' .. name, 'v', 's', 'm')
    rows[count] = {name, f[1], f[2], f[3]}
  end
  if not folded then return {0, rows} end
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name that EVALSHA knows it by."""

    name: str
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


PUT = Script("put", _COMMON + _PUT)
DELETE = Script("delete", _COMMON + _DELETE)
APPEND = Script("append", _COMMON + _APPEND)
RENAME = Script("rename", _COMMON + _RENAME)
RENAME_TREE = Script("rename_tree", _COMMON + _RENAME_TREE)
COPY = Script("copy", _COMMON + _COPY)
SET_ATTRS = Script("set_attrs", _COMMON + _SET_ATTRS)
LIST = Script("list", _LIST)

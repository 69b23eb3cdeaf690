/**
 * What runs inside Redis, one script an operation, each all or nothing. Every script begins with the same look at whose Redis it is:
 * the answer's first element is `OK` or what stands in the way.
 *
 * A server that became primary or started anew has another replication id. It may lack what the last one wrote at the end, so
 * the revisions jump over whatever that could have been: a number in the gap (a *hole*) names a write that is lost, and none is used twice. Each such
 * server begins another *term*, named by its replication id; every answer names it beside the revision: `REVISION:TERM`.
 */
import { createHash } from 'node:crypto';

/** Revisions that a server may have written and taken with it. */
const HOLE = 2 ** 20;
/** Holes that are remembered; a watcher from before lists again. */
const HOLES_MAX = 32;
/** Streams that nobody wrote to for so many revisions are dropped: networks and nodes come and go. */
const IDLE_REVISIONS = 100_000;
/** A log is trimmed when it is this much too long. */
const TRIM_SLACK = 1_000;

/** KEYS: these, then streams. ARGV: incarnation that the caller knows, newest revision that it saw, cluster id, then the script's own. */
export const FIXED_KEYS = ['meta', 'data', 'keys', 'trimmed', 'sessions', 'epochs', 'streams'] as const;
const STREAMS_FROM = FIXED_KEYS.length + 1;

const SHARED = `
local META, DATA, ORDER, TRIMMED, SESSIONS, EPOCHS, STREAMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local function text(n) return string.format('%.0f', n) end
local function replid() return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') end
local function time() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
`;

const HEAD = `${SHARED}
local meta = redis.call('HMGET', META, 'incarnation', 'cluster', 'revision', 'replid', 'holes', 'base', 'forgotten')
if not meta[1] then return {'EMPTY'} end
if meta[2] ~= ARGV[3] then return {'FOREIGN', meta[2]} end
local revision, base, forgotten = tonumber(meta[3]), tonumber(meta[6]), tonumber(meta[7])
local holes = {}
for a, b in string.gmatch(meta[5], '(%d+)-(%d+)') do holes[#holes + 1] = {tonumber(a), tonumber(b)} end
local here = replid()
if here ~= meta[4] then
  holes[#holes + 1] = {revision, revision + ${HOLE}}
  revision = revision + ${HOLE}
  if #holes > ${HOLES_MAX} then base = table.remove(holes, 1)[2] end
  local words = {}
  for i, hole in ipairs(holes) do words[i] = text(hole[1]) .. '-' .. text(hole[2]) end
  redis.call('HSET', META, 'replid', here, 'revision', text(revision), 'holes', table.concat(words, ' '), 'base', text(base))
  -- Nobody could renew meanwhile: every session gets its whole time again.
  local now, all = time(), redis.call('HGETALL', SESSIONS)
  for i = 1, #all, 2 do
    local epoch, _, ttl = string.match(all[i + 1], '(%d+):(%d+):(%d+)')
    redis.call('HSET', SESSIONS, all[i], epoch .. ':' .. text(now + ttl) .. ':' .. ttl)
  end
end
if ARGV[1] ~= '' and ARGV[1] ~= meta[1] then return {'OTHER', meta[1]} end
-- The revision as answers begin with it, and the term at which it is.
local term = string.sub(here, 1, 16)
local function at_term(n) return text(n) .. ':' .. term end
local function lost(at)
  if at > revision then return true end
  for _, hole in ipairs(holes) do if hole[1] < at and at < hole[2] then return true end end
  return false
end
if ARGV[1] ~= '' and lost(tonumber(ARGV[2])) then return {'BEHIND', text(revision)} end
-- Of whose writing an entry is: of this incarnation, on this server.
local run = string.sub(meta[1], 1, 12) .. string.sub(here, 1, 12)
local function held(name)
  local epoch, ends = string.match(redis.call('HGET', SESSIONS, name) or '', '(%d+):(%d+):')
  return epoch and tonumber(ends) > time() and tonumber(epoch)
end
`;

/** ARGV: a new incarnation. Makes an empty store; one that is there stays. Its revisions go on from the newest one that the caller saw. */
const INIT = `${SHARED}
local there = redis.call('HMGET', META, 'incarnation', 'cluster')
if there[1] then
  if there[2] ~= ARGV[3] then return {'FOREIGN', there[2]} end
  return {'OK', ARGV[2], there[1]}
end
for _, stream in ipairs(redis.call('ZRANGE', STREAMS, 0, -1)) do redis.call('DEL', stream) end
redis.call('DEL', DATA, ORDER, TRIMMED, SESSIONS, EPOCHS, STREAMS)
redis.call('HSET', META, 'incarnation', ARGV[4], 'cluster', ARGV[3], 'revision', ARGV[2], 'replid', replid(), 'holes', '', 'base', ARGV[2], 'forgotten', '0', 'epochs', text(time()))
return {'OK', ARGV[2], ARGV[4]}
`;

/** ARGV: the incarnation that lost something, the next one. One caller changes it, the others get what it chose. */
const RENEW_INCARNATION = `${SHARED}
local there = redis.call('HMGET', META, 'incarnation', 'cluster', 'revision')
if not there[1] then return {'EMPTY'} end
if there[2] ~= ARGV[3] then return {'FOREIGN', there[2]} end
if there[1] ~= ARGV[4] then return {'OK', there[3], there[1]} end
redis.call('HSET', META, 'incarnation', ARGV[5])
redis.call('DEL', SESSIONS)
return {'OK', there[3], ARGV[5]}
`;

/** Which incarnation it is. */
const HELLO = `${HEAD} return {'OK', at_term(revision), meta[1]}`;

const GET = `${HEAD} return {'OK', at_term(revision), redis.call('HGET', DATA, ARGV[4])}`;

/**
 * ARGV: prefix, newest revision of what is wanted or '', node or ''. Answers key, value, key, value… With a node without what other nodes have for
 * themselves: their statuses, their numbers, their signs of life.
 */
const LIST = `${HEAD}
local from, to = '-', '+'
if ARGV[4] ~= '' then from, to = '[' .. ARGV[4], '(' .. ARGV[4] .. '\\255' end
local keys = redis.call('ZRANGEBYLEX', ORDER, from, to)
local up_to, node = tonumber(ARGV[5]), ARGV[6]
if node ~= '' then
  local own, mine, all = '/' .. node, 'local/' .. node .. '/', keys
  keys = {}
  for _, key in ipairs(all) do
    local kind = string.match(key, '^[^/]*/')
    local theirs = kind == 'status/' and string.sub(key, -#own) ~= own
      or kind == 'local/' and string.sub(key, 1, #mine) ~= mine
      or kind == 'alive/'
    if not theirs then keys[#keys + 1] = key end
  end
end
local found = {}
for first = 1, #keys, 1000 do
  local last = math.min(first + 999, #keys)
  for i, value in ipairs(redis.call('HMGET', DATA, unpack(keys, first, last))) do
    if not up_to or tonumber(string.match(value, '^%d+')) <= up_to then
      found[#found + 1] = keys[first + i - 1]
      found[#found + 1] = value
    end
  end
end
return {'OK', at_term(revision), found}
`;

/** ARGV: session, its epoch (both '' = none), actor, length of the log, term or '', then for each operation: kind, key, expectation or '', value. */
const TRANSACT = `${HEAD}
if ARGV[8] ~= '' and ARGV[8] ~= term then return {'TERM', at_term(revision)} end
if ARGV[4] ~= '' and held(ARGV[4]) ~= tonumber(ARGV[5]) then return {'FENCED', at_term(revision)} end
for i = 9, #ARGV, 4 do
  if ARGV[i + 2] ~= '' then
    local actual = string.match(redis.call('HGET', DATA, ARGV[i + 1]) or '0:', '^%d+')
    if actual ~= ARGV[i + 2] then return {'CONFLICT', at_term(revision), ARGV[i + 1], ARGV[i + 2], actual} end
  end
end
local next, entries = text(revision + 1), {}
for i = 9, #ARGV, 4 do
  local kind, key, value = ARGV[i], ARGV[i + 1], nil
  if kind == 'put' then
    value = ARGV[i + 3]
    redis.call('HSET', DATA, key, next .. ':' .. value)
    redis.call('ZADD', ORDER, 0, key)
  elseif kind == 'delete' and redis.call('HDEL', DATA, key) == 1 then
    value = 'null'
    redis.call('ZREM', ORDER, key)
  end
  if value then
    entries[#entries + 1] = '{"key":' .. cjson.encode(key) .. ',"value":' .. value .. ',"revision":' .. next .. '}'
  end
end
if #entries == 0 then return {'OK', at_term(revision)} end
redis.call('HSET', META, 'revision', next)
local change, keep = '[' .. table.concat(entries, ',') .. ']', tonumber(ARGV[7])
for i = ${STREAMS_FROM}, #KEYS do
  local stream = KEYS[i]
  local after = redis.call('ZSCORE', STREAMS, stream) or '0'
  redis.call('XADD', stream, next .. '-0', 'entries', change, 'actor', ARGV[6], 'after', after, 'run', run)
  redis.call('ZADD', STREAMS, next, stream)
  if redis.call('XLEN', stream) > keep + ${TRIM_SLACK} then
    redis.call('XTRIM', stream, 'MAXLEN', keep)
    local oldest = string.match(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1], '^%d+')
    redis.call('HSET', TRIMMED, stream, text(tonumber(oldest) - 1))
  end
end
if (revision + 1) % 1000 == 0 then
  local idle = redis.call('ZRANGEBYSCORE', STREAMS, '-inf', text(revision - ${IDLE_REVISIONS}), 'WITHSCORES', 'LIMIT', 0, 100)
  for i = 1, #idle, 2 do
    redis.call('DEL', idle[i])
    redis.call('ZREM', STREAMS, idle[i])
    redis.call('HDEL', TRIMMED, idle[i])
    forgotten = math.max(forgotten, tonumber(idle[i + 1]))
  end
  redis.call('HSET', META, 'forgotten', text(forgotten))
end
return {'OK', at_term(revision + 1)}
`;

/** ARGV: place, most changes of a stream. Answers whether to list again, a page of each stream, and by whom entries are written now. */
const READ = `${HEAD}
local at, pages = tonumber(ARGV[4]), {}
if lost(at) or at < base then return {'OK', at_term(revision), 1, pages} end
for i = ${STREAMS_FROM}, #KEYS do
  local trimmed = redis.call('HGET', TRIMMED, KEYS[i])
  if trimmed and at < tonumber(trimmed) then return {'OK', at_term(revision), 1, {}} end
  if at < forgotten and redis.call('EXISTS', KEYS[i]) == 0 then return {'OK', at_term(revision), 1, {}} end
  pages[#pages + 1] = redis.call('XRANGE', KEYS[i], text(at + 1) .. '-0', '+', 'COUNT', ARGV[5])
end
return {'OK', at_term(revision), 0, pages, run}
`;

/** ARGV: name, milliseconds. An epoch rises above every one that a lost primary, or the store that was emptied, may have given. */
const BEGIN_SESSION = `${HEAD}
local holder = held(ARGV[4])
if holder then return {'HELD', at_term(revision), text(holder)} end
local floor = tonumber(redis.call('HGET', META, 'epochs'))
if #holes > 0 then floor = math.max(floor, holes[#holes][2]) end
local epoch = text(math.max(tonumber(redis.call('HGET', EPOCHS, ARGV[4]) or '0'), floor) + 1)
redis.call('HSET', EPOCHS, ARGV[4], epoch)
redis.call('HSET', SESSIONS, ARGV[4], epoch .. ':' .. text(time() + ARGV[5]) .. ':' .. ARGV[5])
return {'OK', at_term(revision), epoch}
`;

/** ARGV: name, epoch, milliseconds. */
const RENEW_SESSION = `${HEAD}
if held(ARGV[4]) ~= tonumber(ARGV[5]) then return {'FENCED', at_term(revision)} end
redis.call('HSET', SESSIONS, ARGV[4], ARGV[5] .. ':' .. text(time() + ARGV[6]) .. ':' .. ARGV[6])
return {'OK', at_term(revision)}
`;

/** ARGV: name, epoch. */
const END_SESSION = `${HEAD}
if held(ARGV[4]) == tonumber(ARGV[5]) then redis.call('HDEL', SESSIONS, ARGV[4]) end
return {'OK', at_term(revision)}
`;

export interface Script {
  readonly source: string;
  readonly sha: string;
}

const script = (source: string): Script => ({ source, sha: createHash('sha1').update(source).digest('hex') });

export const SCRIPTS = {
  init: script(INIT),
  renewIncarnation: script(RENEW_INCARNATION),
  hello: script(HELLO),
  get: script(GET),
  list: script(LIST),
  transact: script(TRANSACT),
  read: script(READ),
  beginSession: script(BEGIN_SESSION),
  renewSession: script(RENEW_SESSION),
  endSession: script(END_SESSION),
} as const;

"""What must be atomic on the server, in Lua. Every script touches the keys of one key only, which lie in one slot.

A lease is a random token under a key of its own. Who holds it loads; who stores must still hold it, and consumes it by
storing. So an owner whose lease ran out, or was taken away by a `set`, a `delete` or a newer owner, changes nothing:
that is what a fencing token is for, and a number that grows would add nothing where lease and value lie side by side.
"""
from __future__ import annotations

from hashlib import sha1


class Script:
    """A script and the digest that the server knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text.strip().encode()
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()


# KEYS: value, generation, lease, waiters. ARGV: token, lease in ms, inbox or "", a new generation, id of a value that
# the caller has seen and cannot use. Answer: {value or nil, generation, 1 owner or 0, ms until the lease ends}.
JOIN = Script("""
local generation = redis.call('GET', KEYS[2])
local value = redis.call('GET', KEYS[1])
if generation and value and string.sub(value, 3, 10) == generation and string.sub(value, 11, 18) ~= ARGV[5] then
  return {value, generation, 0, 0}
end
local holder = redis.call('GET', KEYS[3])
if not holder then
  redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
  holder = ARGV[1]
end
if not generation then
  generation = ARGV[4]
  redis.call('SET', KEYS[2], generation)
end
if holder == ARGV[1] then
  return {false, generation, 1, tonumber(ARGV[2])}
end
if ARGV[3] ~= '' then
  redis.call('SADD', KEYS[4], ARGV[3])
  redis.call('PEXPIRE', KEYS[4], 4 * ARGV[2])
end
return {false, generation, 0, math.max(redis.call('PTTL', KEYS[3]), 1)}
""")

_WAKE = """
for _, inbox in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  redis.pcall('PUBLISH', inbox, KEYS[1])
end
redis.call('DEL', KEYS[4])
"""

# KEYS as above. ARGV: token, generation when the load began, data, ms to live or "".
# Answer: 1 stored, 0 refused (the lease or the generation is no longer what it was), -1 refused by a server that knows of
# neither (it has lost everything), or the error of the write.
STORE = Script("""
local stored = 0
local generation = redis.call('GET', KEYS[2])
if not generation then
  stored = -1
end
if redis.call('GET', KEYS[3]) == ARGV[1] then
  if generation == ARGV[2] then
    if ARGV[4] == '' then
      stored = redis.pcall('SET', KEYS[1], ARGV[3])
    else
      stored = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
    end
    if not stored.err then
      stored = 1
    end
  end
  redis.call('DEL', KEYS[3])
end
""" + _WAKE + """
return stored
""")

# KEYS as above. ARGV: token. All who wait are woken; one of them gets the lease, the others wait for that one.
RELEASE = Script("""
if redis.call('GET', KEYS[3]) == ARGV[1] then
  redis.call('DEL', KEYS[3])
end
""" + _WAKE + """
return 0
""")

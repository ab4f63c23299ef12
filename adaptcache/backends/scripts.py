"""What must be atomic on the server, in Lua, and how it is sent. Every script touches the keys of one key only, which lie in one slot.

A lease is a random token under a key of its own. Who holds it loads; who stores must still hold it, and consumes it by
storing. So an owner whose lease ran out, or was taken away by a `set`, a `delete` or a newer owner, changes nothing:
that is what a fencing token is for, and a number that grows would add nothing where lease and value lie side by side.
"""
from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from adaptcache.backends.names import Name
from adaptcache.backends.steps import CHUNK, Batch, Call, Command, Plan, Trouble


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

# KEYS as above. ARGV: token, lease in ms, generation when the load began. Answer: 1 pushed; 0 no longer ours, or of a space that was
# cleared meanwhile (then whoever waits need not wait for it); -1 a server that knows of neither.
RENEW = Script("""
local generation = redis.call('GET', KEYS[2])
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
  return generation and 0 or -1
end
if generation == ARGV[3] then
  redis.call('PEXPIRE', KEYS[3], ARGV[2], 'GT')
  return 1
end
redis.call('DEL', KEYS[3])
""" + _WAKE + """
return generation and 0 or -1
""")


def send_one(script: Script, name: Name, *arguments: bytes) -> Plan[Any]:
    """A script on the keys of one name; its answer, or a Trouble is raised."""
    answers = yield from send(script, [(name, arguments)])
    if isinstance(answers[0], Trouble):
        raise answers[0]
    return answers[0]


def send(script: Script, calls: Sequence[tuple[Name, tuple[bytes, ...]]]) -> Plan[list[Any]]:
    """A script on the keys of each name, and the answers, in which a Trouble stands for one that failed. Each may be sent twice: a token that
    is there already is ours, one that is gone stays gone. STORE may not: the second time it would not know that it has stored."""
    answers: list[Any] = []
    for first in range(0, len(calls), CHUNK):
        part = calls[first:first + CHUNK]
        got: list[Any]
        if len(part) == 1:
            try:
                got = [(yield Call(_command("EVALSHA", script.digest, part[0]), again=script is not STORE))]
            except Trouble as trouble:
                got = [trouble]
        else:
            got = yield Batch([_command("EVALSHA", script.digest, call) for call in part], again=script is not STORE)
        unknown = [at for at, answer in enumerate(got) if isinstance(answer, Trouble) and type(answer.error).__name__ == "NoScriptError"]
        if unknown:
            more = yield Batch([_command("EVAL", script.text, part[at]) for at in unknown], again=False)
            for at, answer in zip(unknown, more, strict=True):
                got[at] = answer
        answers += got
    return answers


def _command(how: str, what: bytes, call: tuple[Name, tuple[bytes, ...]]) -> Command:
    name, arguments = call
    return (how, what, 4, name.value, name.generation, name.lease, name.waiters, *arguments)

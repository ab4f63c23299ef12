"""Reading: one key or many, from the server and from the part in this process.

A read is one round trip: the generation and the value lie in one slot and come with one MGET; the versions of the tags that
this process has seen on the key before come with them (in a Cluster on connections of their own, at the same time). Only the
first read of a tagged key takes a second trip. A value counts if its generation and every tag version are the server's of
now, and nothing that this process owes (`debts`) concerns it. No socket, no thread and no loop is met here: plans are
generators that yield steps.
"""
from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.names import Name
from adaptcache.backends.space import Near, Space
from adaptcache.backends.steps import CHUNK, Batch, Call, Command, Plan, Trouble
from adaptcache.backends.versions import versions_of
from adaptcache.flights import MISSING


class Look:
    """What a read came to."""

    __slots__ = ("envelope", "header", "hit", "seen", "size", "value", "well")

    def __init__(self, *, seen: bytes = b"", well: bool = True) -> None:
        self.hit = False
        self.value: Any = MISSING
        self.envelope: Any = None
        self.header: header.Header | None = None
        self.size = 0.0             # bytes on the server
        self.seen = seen            # id of what lay there and could not be used
        self.well = well            # False: the server was not asked, or could not answer


class Held:
    """A value in this process, and what it depends on: its generation, and the versions of its tags, are entries there too."""

    __slots__ = ("due", "generation", "key", "tags", "told", "value")

    def __init__(self, key: Any, value: Any, generation: bytes, tags: tuple[tuple[bytes, bytes], ...], due: float) -> None:
        self.key = key
        self.value = value
        self.generation = generation
        self.tags = tags
        self.due = due              # monotonic seconds from which a hit must go to the server, to keep it there
        self.told = -math.inf       # when the learner last heard of a hit here


class Generation(bytes):
    """A generation in this process: told apart from a tag's version, since it weighs nothing there."""


class Reader:
    """The plans that read one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._names = space.names
        self._codec = space.codec
        self._deadlines = space.deadlines
        self._debts = space.debts
        self._events = space.events
        self._generations = space.generations
        self._tags = space.tags
        self._counted = space.counted

    def held(self, key: Any, places: tuple[bytes, bytes], near: Near) -> Any:
        """What this process has of a key, without a socket, or MISSING. `places`: of its value and its generation (`Names.pair`)."""
        both = near.both(*places)
        if both is None:
            return MISSING
        held, current = both
        if type(held) is not Held or current != held.generation:
            return MISSING
        debts = self._debts
        if (debts.keys or debts.spaces or debts.tags) and (self._space.owes(self._space.name(key)) or (held.tags and debts.tags)):
            return MISSING
        for at, version in held.tags:
            if near.get(at, MISSING) != version:
                return MISSING
        if held.due < math.inf:
            now = time.monotonic()
            if now >= held.due:
                return MISSING
            if now - held.told >= 1.0:
                held.told = now
                if not self._deadlines.read_near(places[0]):
                    held.due = 0.0
                    return MISSING
        self._counted.hits += 1
        return held.value

    def look(self, key: Any, name: Name, near: Near | None = None) -> Plan[Look]:
        """Read one key; never raises Trouble. `near` is given what was read, unless it changed meanwhile."""
        if self._space.owes(name):
            return Look(well=False)
        tags = self._tags.get(name.value, ())
        tickets = [] if near is None else [near.begin(place) for place in (name.value, name.generation, *map(self._names.tag, tags))]
        try:
            generation, data, versions = yield from self._fetch(name, tags)
            if data is None:
                return self._absent(name)
            look, more = self.judge(key, name, generation, data, versions)
            if more:
                found = yield from versions_of(self._space, more)
                look, _ = self.judge(key, name, generation, data, {**versions, **found})
        except Trouble as trouble:
            self._space.failed("read-failed", key, trouble)
            return Look(well=False)
        if look.hit:
            yield from self._extend(key, name, look)
            if near is not None:
                self._keep(key, name, look, near, dict(zip(tags, tickets[2:], strict=True)), tickets[0], tickets[1])
        return look

    def _keep(self, key: Any, name: Name, look: Look, near: Near, tags: Mapping[str, Any], ticket: Any, of_generation: Any) -> None:
        """Keep a copy in this process, if every part of it was asked for under a ticket."""
        head, hard = look.header, look.envelope.hard
        if ticket is None or head is None or any(tags.get(tag) is None for tag, _ in head.tags):
            return
        ttl = None if hard is None else max(hard - time.time(), 0.0)
        places = tuple((self._names.tag(tag), version) for tag, version in head.tags)
        if near.put(ticket, Held(key, look.value, head.generation, places, self._deadlines.near_until(name.value)), ttl=ttl):
            for (place, version), (tag, _) in zip(places, head.tags, strict=True):
                if near.get(place) != version:
                    near.put(tags[tag], version)
            if near.get(name.generation) != head.generation:
                near.put(of_generation, Generation(head.generation))

    def _fetch(self, name: Name, tags: Sequence[str]) -> Plan[tuple[bytes | None, bytes | None, dict[str, bytes | None]]]:
        if not tags:
            generation, data = yield Call(("MGET", name.generation, name.value))
            return generation, data, {}
        places = [self._names.tag(tag) for tag in tags]
        if not self._space.cluster:
            generation, data, *versions = yield Call(("MGET", name.generation, name.value, *places))
            return generation, data, dict(zip(tags, versions, strict=True))
        pair, *versions = yield Batch([("MGET", name.generation, name.value), *(("GET", place) for place in places)])
        for answer in (pair, *versions):
            if isinstance(answer, Trouble):
                raise answer
        return pair[0], pair[1], dict(zip(tags, versions, strict=True))

    def judge(self, key: Any, name: Name, generation: bytes | None, data: bytes, versions: Mapping[str, bytes | None],
               ) -> tuple[Look, list[str]]:
        """Whether these bytes are the key's value of now; and the tags whose versions must be asked for to tell."""
        look = Look(seen=header.id_of(data))
        head = header.unpack(data)
        if head is None:
            self._events.tell("unreadable", key, ValueError("no header of ours"))
            return self._miss(name, look), []
        if generation is not None:
            self._generations[name.generation] = generation
        if head.generation != generation:
            return self._miss(name, look), []
        if head.tags:
            missing = [tag for tag, _ in head.tags if tag not in versions]
            if missing:
                self._tags[name.value] = tuple(tag for tag, _ in head.tags)
                return look, missing
            if any(versions[tag] != version or tag in self._debts.tags for tag, version in head.tags):
                return self._miss(name, look), []
        envelope = self._codec.loads(data[head.size:], context=name.value)
        if not envelope:
            self._events.tell("unreadable", key, ValueError(envelope.reason))
            return self._miss(name, look), []
        if envelope.hard is not None and time.time() >= envelope.hard:
            return self._miss(name, look), []
        look.hit = True
        look.value = envelope.value
        look.envelope = envelope
        look.header = head
        look.size = float(len(name.value) + len(data))
        return look, []

    def _absent(self, name: Name) -> Look:
        return self._miss(name, Look())

    def _miss(self, name: Name, look: Look) -> Look:
        self._deadlines.missed(name.value)
        return look

    def _extend(self, key: Any, name: Name, look: Look) -> Plan[None]:
        push = self._read(name, look)
        if push is not None:
            try:
                yield Call(("PEXPIRE", name.value, b"%d" % push, b"GT"))
            except Trouble as trouble:
                self._space.failed("write-failed", key, trouble)

    def _read(self, name: Name, look: Look) -> int | None:
        envelope = look.envelope
        return self._deadlines.read(name.value, envelope.hard, birth=envelope.birth, size=look.size, cost=envelope.cost)

    def ask(self, key: Any, name: Name, near: Near | None = None) -> Plan[Look]:
        """`look` for a request: counted, and answered from the shelf where the server cannot be asked."""
        look = yield from self.look(key, name, near)
        if not look.well:
            look.value = self._space.sheltered(name)
        self._space.count(look.hit)
        return look

    def look_many(self, keys: Sequence[tuple[Any, Name]], near: Near | None = None) -> Plan[list[Look]]:
        """`look` for many keys, in one round trip where the tags are known."""
        looks: list[Look] = [Look(well=False) for _ in keys]
        asked = [at for at, (_, name) in enumerate(keys) if not self._space.owes(name)]
        groups: dict[bytes, list[int]] = {}
        for at in asked:
            group = groups.setdefault(keys[at][1].generation, [])
            group.append(at)
        tags = sorted({tag for at in asked for tag in self._tags.get(keys[at][1].value, ())})
        tickets: dict[bytes, Any] = {}
        if near is not None:
            tickets = {place: near.begin(place) for place in (*groups, *(keys[at][1].value for at in asked), *map(self._names.tag, tags))}
        commands: list[Command] = []
        parts: list[list[int]] = []
        for generation, group in groups.items():
            for first in range(0, len(group), CHUNK):
                part = group[first:first + CHUNK]
                parts.append(part)
                commands.append(("MGET", generation, *(keys[at][1].value for at in part)))
        try:
            versions = {}
            if tags and not self._space.cluster:
                commands.append(("MGET", *map(self._names.tag, tags)))
            elif tags:
                commands += [("GET", self._names.tag(tag)) for tag in tags]
            answers = yield Batch(commands)
            if tags:
                told = answers[len(parts):] if self._space.cluster else answers[-1]
                if not isinstance(told, Trouble):
                    versions = {tag: each for tag, each in zip(tags, told, strict=True) if not isinstance(each, Trouble)}
            undecided: list[tuple[int, bytes | None, bytes]] = []
            more: set[str] = set()
            for part, answer in zip(parts, answers, strict=False):
                if isinstance(answer, Trouble):
                    self._space.failed("read-failed", keys[part[0]][0], answer)
                    continue
                for at, data in zip(part, answer[1:], strict=True):
                    key, name = keys[at]
                    if data is None:
                        looks[at] = self._absent(name)
                        continue
                    looks[at], unknown = self.judge(key, name, answer[0], data, versions)
                    if unknown:
                        undecided.append((at, answer[0], data))
                        more.update(unknown)
            if more:
                versions.update((yield from versions_of(self._space, sorted(more))))
                for at, generation_, data in undecided:
                    looks[at], _ = self.judge(*keys[at], generation_, data, versions)
        except Trouble as trouble:
            self._space.failed("read-failed", keys[0][0] if keys else None, trouble)
            return [look if look.hit else Look(well=False) for look in looks]
        pushes: list[Command] = []
        for (_, name), look in zip(keys, looks, strict=True):
            if look.hit and (push := self._read(name, look)) is not None:
                pushes.append(("PEXPIRE", name.value, b"%d" % push, b"GT"))
        if near is not None:
            known = {tag: tickets[self._names.tag(tag)] for tag in tags}
            for (key, name), look in zip(keys, looks, strict=True):
                if look.hit:
                    self._keep(key, name, look, near, known, tickets[name.value], tickets[name.generation])
        if pushes:
            refused = next((each for each in (yield Batch(pushes)) if isinstance(each, Trouble)), None)
            if refused is not None:
                self._space.failed("write-failed", None, refused)
        return looks

    def get_many(self, keys: Sequence[tuple[Any, Name]], near: Near | None = None) -> Plan[dict[Any, Any]]:
        values: dict[Any, Any] = {}
        if near is not None:
            for key, name in keys:
                value = self.held(key, (name.value, name.generation), near)
                if value is not MISSING:
                    values[key] = value
        asked = [(key, name) for key, name in keys if key not in values] if values else keys
        if asked:
            for (key, _), look in zip(asked, (yield from self.look_many(asked, near)), strict=True):
                self._space.count(look.hit)
                if look.hit:
                    values[key] = look.value
        return values

"""The flows: reading, writing, invalidating and loading, as generators that yield steps. No socket, no thread, no loop.

A read is one round trip: the generation and the value lie in one slot and come with one MGET; the versions of the tags that
this process has seen on the key before come with them (in a Cluster on connections of their own, at the same time). Only the
first read of a tagged key takes a second trip. A value counts if its generation and every tag version are the server's of
now, and nothing that this process owes (`debts`) concerns it.

A write takes the lease away first: who is loading meanwhile may not overwrite it. The generation is read in the same trip, after
the value was written; if another process cleared the space before, the value is written once more.

A load: read; if that misses, JOIN (read again, or take the lease, or hear how long another holds it); then either load and STORE
under the lease, or wait in the inbox, no longer than that lease lasts, and JOIN again. Where the server cannot be asked, the
load is done here, and its result kept for a short while (`shelf`).
"""
from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from adaptcache.backends import header
from adaptcache.backends.deadlines import Deadlines, milliseconds
from adaptcache.backends.debts import Debts
from adaptcache.backends.events import Events
from adaptcache.backends.keys import encode
from adaptcache.backends.names import Name, Names
from adaptcache.backends.scripts import JOIN, RELEASE, STORE, Script
from adaptcache.backends.steps import Batch, Call, Command, Listen, Plan, Run, Ticket, Trouble, Wait
from adaptcache.flights import MISSING
from adaptcache.mapping import Cache

TAG_MS = b"%d" % (30 * 86_400_000)      # a tag that nobody has named for so long is forgotten, and what carries it with it
HINTS = 65_536                          # keys whose tags this process remembers
LOADS = 3                               # of one caller, when what it loaded was invalidated meanwhile
JITTER = 0.05                           # seconds, so that those who waited for a dead owner do not come at once
CHUNK = 500                             # keys in one batch


class Codec(Protocol):
    """Values as bytes and back (adaptcache.wire)."""

    def dumps(self, value: Any, *, birth: float, soft: float | None = ..., hard: float | None = ..., cost: float = ...,
              digest: int | None = ..., context: bytes = ...) -> bytes: ...
    def loads(self, data: bytes, *, context: bytes = ...) -> Any: ...


class Wanted:
    """What the caller said about a value: the keywords of `set`."""

    __slots__ = ("cost", "features", "namespace", "size", "tags", "ttl")

    def __init__(self, ttl: float | None = None, cost: float | Callable[[], float] | None = None, size: float | None = None, namespace: Any = None,
                 features: Any = None, tags: tuple[str, ...] = ()) -> None:
        self.ttl = ttl
        self.cost = cost
        self.size = size
        self.namespace = namespace
        self.features = features
        self.tags = tags


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


class Near(Protocol):
    """The part in this process (adaptcache.near), kept coherent by the server."""

    get: Callable[..., Any]

    def begin(self, key: bytes) -> Any: ...
    def put(self, ticket: Any, value: Any, *, ttl: float | None = ...) -> bool: ...
    def forget(self, key: bytes) -> None: ...
    def clear(self) -> None: ...


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


class Counted:
    """What one cache counts of its keys."""

    __slots__ = ("alone", "hits", "inserts", "load_failures", "load_seconds", "loads", "misses", "sheltered", "waits")

    def __init__(self) -> None:
        self.hits = self.misses = self.inserts = self.loads = self.load_failures = 0
        self.load_seconds = 0.0
        self.waits = 0          # for another process's load
        self.alone = 0          # loads without the server
        self.sheltered = 0      # answers from the shelf


class Space:
    """One cache's keys on the server, and the plans on them."""

    def __init__(self, names: Names, codec: Codec, deadlines: Deadlines, debts: Debts, events: Events, *, lease: float,
                 outage: float, cluster: bool, shelf: int) -> None:
        self.names = names
        self.deadlines = deadlines
        self.counted = Counted()
        self._codec = codec
        self._debts = debts
        self._events = events
        self._lease = lease
        self._outage = outage
        self._cluster = cluster
        self._generations: dict[bytes, bytes] = {}
        self._tags: Cache[bytes, tuple[str, ...]] = Cache(HINTS, policy="sieve")
        # Results of loads that the server could not take.
        self.shelf: Cache[bytes, Any] = Cache(shelf, policy="lru", expiry=outage)
        self._epoch = 0     # of invalidations by this process: what was loaded before one is not sheltered after it
        self.nears: list[Near] = []     # the parts in this process: one for threads, one for each event loop

    def name(self, key: Any) -> Name:
        return self.names.of(encode(key))

    # -- reading

    def held(self, name: Name, near: Near) -> Any:
        """What this process has of a key, without a socket, or MISSING."""
        held = near.get(name.value, MISSING)
        if type(held) is not Held or near.get(name.generation, MISSING) != held.generation:
            return MISSING
        debts = self._debts
        if debts and (debts.blocks(name, self.names.space) or (held.tags and debts.tags)):
            return MISSING
        for place, version in held.tags:
            if near.get(place, MISSING) != version:
                return MISSING
        if held.due < math.inf:
            now = time.monotonic()
            if now >= held.due:
                return MISSING
            if now - held.told >= 1.0:
                held.told = now
                if not self.deadlines.read_near(name.value):
                    held.due = 0.0
                    return MISSING
        self.counted.hits += 1
        return held.value

    def look(self, key: Any, name: Name, near: Near | None = None) -> Plan[Look]:
        """Read one key; never raises Trouble. `near` is given what was read, unless it changed meanwhile."""
        if self._debts and self._debts.blocks(name, self.names.space):
            return Look(well=False)
        tags = self._tags.get(name.value, ())
        tickets = [] if near is None else [near.begin(place) for place in (name.value, name.generation, *map(self.names.tag, tags))]
        try:
            generation, data, versions = yield from self._fetch(name, tags)
            if data is None:
                return self._absent(name)
            look, more = self._judge(key, name, generation, data, versions)
            if more:
                found = yield from self._versions(more)
                look, _ = self._judge(key, name, generation, data, {**versions, **found})
        except Trouble as trouble:
            self._failed("read-failed", key, trouble)
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
        places = tuple((self.names.tag(tag), version) for tag, version in head.tags)
        if near.put(ticket, Held(key, look.value, head.generation, places, self.deadlines.near_until(name.value)), ttl=ttl):
            for (place, version), (tag, _) in zip(places, head.tags, strict=True):
                if near.get(place) != version:
                    near.put(tags[tag], version)
            if near.get(name.generation) != head.generation:
                near.put(of_generation, Generation(head.generation))

    def _fetch(self, name: Name, tags: Sequence[str]) -> Plan[tuple[bytes | None, bytes | None, dict[str, bytes | None]]]:
        if not tags:
            generation, data = yield Call(("MGET", name.generation, name.value))
            return generation, data, {}
        places = [self.names.tag(tag) for tag in tags]
        if not self._cluster:
            generation, data, *versions = yield Call(("MGET", name.generation, name.value, *places))
            return generation, data, dict(zip(tags, versions, strict=True))
        pair, *versions = yield Batch([("MGET", name.generation, name.value), *(("GET", place) for place in places)])
        for answer in (pair, *versions):
            if isinstance(answer, Trouble):
                raise answer
        return pair[0], pair[1], dict(zip(tags, versions, strict=True))

    def _versions(self, tags: Sequence[str]) -> Plan[dict[str, bytes | None]]:
        if not tags:
            return {}
        places = [self.names.tag(tag) for tag in tags]
        if self._cluster:
            versions = yield Batch([("GET", place) for place in places])
            for answer in versions:
                if isinstance(answer, Trouble):
                    raise answer
        else:
            versions = yield Call(("MGET", *places))
        return dict(zip(tags, versions, strict=True))

    def _judge(self, key: Any, name: Name, generation: bytes | None, data: bytes, versions: Mapping[str, bytes | None],
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
        self.deadlines.missed(name.value)
        return look

    def _extend(self, key: Any, name: Name, look: Look) -> Plan[None]:
        push = self._read(name, look)
        if push is not None:
            try:
                yield Call(("PEXPIRE", name.value, b"%d" % push, b"GT"))
            except Trouble as trouble:
                self._failed("write-failed", key, trouble)

    def _read(self, name: Name, look: Look) -> int | None:
        envelope = look.envelope
        return self.deadlines.read(name.value, envelope.hard, birth=envelope.birth, size=look.size, cost=envelope.cost)

    def ask(self, key: Any, name: Name, near: Near | None = None) -> Plan[Look]:
        """`look` for a request: counted, and answered from the shelf where the server cannot be asked."""
        look = yield from self.look(key, name, near)
        if not look.well:
            look.value = self.shelf.get(name.value, MISSING)
            if look.value is not MISSING:
                self.counted.sheltered += 1
        self._count(look.hit)
        return look

    def look_many(self, keys: Sequence[tuple[Any, Name]], near: Near | None = None) -> Plan[list[Look]]:
        """`look` for many keys, in one round trip where the tags are known."""
        looks: list[Look] = [Look(well=False) for _ in keys]
        asked = [at for at, (_, name) in enumerate(keys) if not (self._debts and self._debts.blocks(name, self.names.space))]
        groups: dict[bytes, list[int]] = {}
        for at in asked:
            group = groups.setdefault(keys[at][1].generation, [])
            group.append(at)
        tags = sorted({tag for at in asked for tag in self._tags.get(keys[at][1].value, ())})
        tickets: dict[bytes, Any] = {}
        if near is not None:
            tickets = {place: near.begin(place) for place in (*groups, *(keys[at][1].value for at in asked), *map(self.names.tag, tags))}
        commands: list[Command] = []
        parts: list[list[int]] = []
        for generation, group in groups.items():
            for first in range(0, len(group), CHUNK):
                part = group[first:first + CHUNK]
                parts.append(part)
                commands.append(("MGET", generation, *(keys[at][1].value for at in part)))
        try:
            versions = {}
            if tags and not self._cluster:
                commands.append(("MGET", *map(self.names.tag, tags)))
            elif tags:
                commands += [("GET", self.names.tag(tag)) for tag in tags]
            answers = yield Batch(commands)
            if tags:
                told = answers[len(parts):] if self._cluster else answers[-1]
                if not isinstance(told, Trouble):
                    versions = {tag: each for tag, each in zip(tags, told, strict=True) if not isinstance(each, Trouble)}
            undecided: list[tuple[int, bytes | None, bytes]] = []
            more: set[str] = set()
            for part, answer in zip(parts, answers, strict=False):
                if isinstance(answer, Trouble):
                    self._failed("read-failed", keys[part[0]][0], answer)
                    continue
                for at, data in zip(part, answer[1:], strict=True):
                    key, name = keys[at]
                    if data is None:
                        looks[at] = self._absent(name)
                        continue
                    looks[at], unknown = self._judge(key, name, answer[0], data, versions)
                    if unknown:
                        undecided.append((at, answer[0], data))
                        more.update(unknown)
            if more:
                versions.update((yield from self._versions(sorted(more))))
                for at, generation_, data in undecided:
                    looks[at], _ = self._judge(*keys[at], generation_, data, versions)
        except Trouble as trouble:
            self._failed("read-failed", keys[0][0] if keys else None, trouble)
            return [look if look.hit else Look(well=False) for look in looks]
        pushes: list[Command] = []
        for (_, name), look in zip(keys, looks, strict=True):
            if look.hit and (push := self._read(name, look)) is not None:
                pushes.append(("PEXPIRE", name.value, b"%d" % push, b"GT"))
        if near is not None:
            known = {tag: tickets[self.names.tag(tag)] for tag in tags}
            for (key, name), look in zip(keys, looks, strict=True):
                if look.hit:
                    self._keep(key, name, look, near, known, tickets[name.value], tickets[name.generation])
        if pushes:
            refused = next((each for each in (yield Batch(pushes)) if isinstance(each, Trouble)), None)
            if refused is not None:
                self._failed("write-failed", None, refused)
        return looks

    def get_many(self, keys: Sequence[tuple[Any, Name]], near: Near | None = None) -> Plan[dict[Any, Any]]:
        values: dict[Any, Any] = {}
        if near is not None:
            for key, name in keys:
                value = self.held(name, near)
                if value is not MISSING:
                    values[key] = value
        asked = [(key, name) for key, name in keys if key not in values] if values else keys
        if asked:
            for (key, _), look in zip(asked, (yield from self.look_many(asked, near)), strict=True):
                self._count(look.hit)
                if look.hit:
                    values[key] = look.value
        return values

    # -- writing

    def payload(self, key: Any, name: Name, value: Any, wanted: Wanted, seconds: float | None = None) -> tuple[bytes, float]:
        """The serializer's bytes and the seconds until the deadline; raises for what cannot be serialized."""
        now = time.time()
        hard = self.deadlines.hard(key, value, wanted.ttl, now)
        cost = seconds if wanted.cost is None else wanted.cost() if callable(wanted.cost) else wanted.cost
        data = self._codec.dumps(value, birth=now, hard=None if hard is None else max(hard, now), cost=cost or 0.0, context=name.value)
        if hard is not None and hard <= now:
            return data, 0.0
        left = self.deadlines.written(name.value, hard, now, size=float(len(name.value) + len(data)), cost=cost,
                                      namespace=wanted.namespace, features=wanted.features)
        return data, left

    def set(self, key: Any, name: Name, value: Any, wanted: Wanted) -> Plan[bool]:
        """Write a value; True when the server has it."""
        data, left = self.payload(key, name, value, wanted)
        return (yield from self.set_many([(key, name, data, left)], wanted.tags)) == 1

    def set_many(self, entries: Sequence[tuple[Any, Name, bytes, float]], tags: tuple[str, ...]) -> Plan[int]:
        """Write values that were serialized; how many the server has now."""
        self._local_change([name for _, name, _, _ in entries])
        done = 0
        try:
            versions = yield from self._tag_versions(tags)
            for first in range(0, len(entries), CHUNK):
                done += yield from self._write(entries[first:first + CHUNK], versions)
        except Trouble as trouble:
            self._failed("write-failed", entries[0][0], trouble)
            for key, name, _, _ in entries:
                self._owe_key(key, name, trouble)
        self._local_change([name for _, name, _, _ in entries])
        return done

    def _write(self, entries: Sequence[tuple[Any, Name, bytes, float]], versions: Sequence[tuple[str, bytes]]) -> Plan[int]:
        waiting = list(entries)
        for _ in range(LOADS):
            yield from self._know_generations({name.generation for _, name, _, _ in waiting})
            commands: list[Command] = []
            for _, name, data, left in waiting:
                commands.append(("UNLINK", name.lease))
                if left <= 0:
                    commands.append(("UNLINK", name.value))
                else:
                    whole = header.pack(self._generations[name.generation], versions) + data
                    ms = milliseconds(left)
                    commands.append(("SET", name.value, whole, b"PX", ms) if ms else ("SET", name.value, whole))
            places = list(dict.fromkeys(name.generation for _, name, _, _ in waiting))
            commands += [("GET", place) for place in places]
            owed = self._debts.of(name for _, name, _, _ in waiting)
            answers = yield Batch(commands, again=False)
            now = dict(zip(places, answers[2 * len(waiting):], strict=True))
            again, failed = [], []
            for at, entry in enumerate(waiting):
                key, name, _, left = entry
                trouble = next((each for each in answers[2 * at:2 * at + 2] if isinstance(each, Trouble)), None)
                generation = now[name.generation]
                if trouble is not None:
                    self._failed("write-failed", key, trouble)
                    failed.append((entry, trouble))
                elif isinstance(generation, Trouble):
                    failed.append((entry, generation))
                else:
                    self._debts.paid(owed, name)
                    self._tags.pop(name.value, None)
                    if versions:
                        self._tags[name.value] = tuple(tag for tag, _ in versions)
                    if left > 0 and generation != self._generations[name.generation]:
                        again.append(entry)
            for place, generation in now.items():
                if generation is None:
                    self._generations.pop(place, None)
                elif not isinstance(generation, Trouble):
                    self._generations[place] = generation
            # What was refused (no memory, read only) has left the old value there, which must go.
            for (key, name, _, _), trouble in failed:
                yield from self._remove(key, name, trouble)
            self.counted.inserts += len(waiting) - len(again) - len(failed)
            waiting = again
            if not waiting:
                break
        return len(entries)

    def _know_generations(self, places: Iterable[bytes]) -> Plan[None]:
        """Read the generations that this process does not know; make those that are not there."""
        unknown = [place for place in places if place not in self._generations]
        if not unknown:
            return
        answers = yield from self._make({place: () for place in unknown})
        self._generations.update(zip(unknown, answers, strict=True))

    def _tag_versions(self, tags: Sequence[str]) -> Plan[list[tuple[str, bytes]]]:
        """The versions to write with a value; those that are not there are made."""
        if not tags:
            return []
        answers = yield from self._make({self.names.tag(tag): (b"PX", TAG_MS) for tag in tags})
        return list(zip(tags, answers, strict=True))

    def _make(self, places: Mapping[bytes, tuple[bytes, ...]]) -> Plan[list[bytes]]:
        """The tokens at these places, made where there are none; `places` has what a SET is given besides."""
        commands: list[Command] = []
        for place, how in places.items():
            commands += (("SET", place, header.token(), b"NX", *how), ("GET", place))
            if how:
                commands[-1:-1] = [("PEXPIRE", place, how[-1])]
        answers = [answer for command, answer in zip(commands, (yield Batch(commands)), strict=True) if command[0] == "GET"]
        for answer in answers:
            if isinstance(answer, Trouble):
                raise answer
            if answer is None:
                raise Trouble(None)     # it did not stay there: a server without memory, or that was emptied just now
        return answers

    # -- invalidating

    def delete(self, key: Any, name: Name) -> Plan[bool | None]:
        """Remove a key; was there one? None: the server could not be told yet, and will be."""
        self._local_change([name])
        try:
            gone = yield from self.delete_many([(key, name)])
        finally:
            self._local_change([name])
        return gone[0]

    def delete_many(self, keys: Sequence[tuple[Any, Name]]) -> Plan[list[bool | None]]:
        self._local_change([name for _, name in keys])
        results: list[bool | None] = []
        for first in range(0, len(keys), CHUNK):
            part = keys[first:first + CHUNK]
            commands: list[Command] = []
            for _, name in part:
                # The lease first: an owner must not store between the two.
                commands += (("UNLINK", name.lease), ("GET", name.generation), ("GETRANGE", name.value, b"2", b"9"),
                             ("UNLINK", name.value))
            owed = self._debts.of(name for _, name in part)
            answers = yield Batch(commands)
            for at, (key, name) in enumerate(part):
                answer = answers[4 * at:4 * at + 4]
                bad = next((each for each in answer if isinstance(each, Trouble)), None)
                if bad is not None:
                    self._failed("write-failed", key, bad)
                    self._owe_key(key, name, bad)
                    results.append(None)
                else:
                    self._debts.paid(owed, name)
                    self.deadlines.gone(name.value)
                    results.append(answer[3] == 1 and answer[1] is not None and answer[1] == answer[2])
        self._local_change([name for _, name in keys])
        return results

    def pop(self, key: Any, name: Name) -> Plan[Any]:
        """Remove a key and return its value, or MISSING."""
        look = yield from self.look(key, name)
        yield from self.delete(key, name)
        return look.value

    def _remove(self, key: Any, name: Name, why: Trouble) -> Plan[None]:
        try:
            yield Call(("UNLINK", name.lease, name.value))
        except Trouble as trouble:
            self._owe_key(key, name, trouble if trouble.error is not None else why)
        else:
            self.deadlines.gone(name.value)

    def clear(self) -> Plan[bool]:
        """Give every bucket a new generation; True when the server has them."""
        self._local_change(None)
        try:
            yield from self.clear_now()
        except Trouble as trouble:
            self._failed("write-failed", None, trouble)
            self._debts.owe_space(self, trouble.error)
            return False
        finally:
            self._local_change(None)
        return True

    def clear_now(self) -> Plan[None]:
        fresh = {place: header.token() for place in self.names.generations}
        self._generations.clear()
        for answer in (yield Batch([("SET", place, generation) for place, generation in fresh.items()])):
            if isinstance(answer, Trouble):
                raise answer
        self._generations.update(fresh)

    def invalidate_tag(self, tag: str) -> Plan[bool]:
        """Give a tag a new version; True when the server has it."""
        self._local_change(None)
        try:
            yield from self.invalidate_tag_now(tag)
        except Trouble as trouble:
            self._failed("write-failed", tag, trouble)
            self._debts.owe_tag(tag, self, trouble.error)
            return False
        finally:
            self._local_change(None)
        return True

    def invalidate_tag_now(self, tag: str) -> Plan[None]:
        yield Call(("SET", self.names.tag(tag), header.token(), b"PX", TAG_MS))

    def remove_now(self, names: Sequence[Name]) -> Plan[None]:
        for answer in (yield Batch([("UNLINK", name.lease, name.value) for name in names])):
            if isinstance(answer, Trouble):
                raise answer

    # What `debts` calls, in its thread; `run` is the synchronous driver's.
    run: Callable[[Plan[Any]], Any]

    def deliver_keys(self, names: list[Name]) -> None:
        self.run(self.remove_now(names))

    def deliver_clear(self) -> None:
        self.run(self.clear_now())

    def deliver_tag(self, tag: str) -> None:
        self.run(self.invalidate_tag_now(tag))

    # -- loading

    def load(self, key: Any, name: Name, loader: Callable[[], Any], wanted: Wanted, look: Look) -> Plan[Any]:
        """The value of a key that `ask` did not find, loaded here only if no other process is at it."""
        if not look.well:
            return (yield from self._alone(key, name, loader, wanted))
        kept = self.shelf.get(name.value, MISSING)
        if kept is not MISSING:
            self.counted.sheltered += 1     # read, but what was loaded could not be written
            return kept
        value: Any = MISSING
        for _ in range(LOADS):
            value, final = yield from self._load_once(key, name, loader, wanted, look.seen)
            if final:
                break
        return value

    def _load_once(self, key: Any, name: Name, loader: Callable[[], Any], wanted: Wanted, seen: bytes) -> Plan[tuple[Any, bool]]:
        """A value, and whether it may be returned: False if it was invalidated while it was loaded."""
        token = os.urandom(16)
        epoch = self._epoch
        try:
            versions = yield from self._tag_versions(wanted.tags)
            found, generation, waited = yield from self._acquire(key, name, token, seen)
        except Trouble as trouble:
            self._failed("write-failed", key, trouble)
            return (yield from self._alone(key, name, loader, wanted)), True
        if found is not MISSING:
            return found, True
        if generation is None:
            self._events.tell("impatient", key)
            return (yield from self._run(loader))[0], True
        if waited:
            self._events.tell("took-over", key)
        began = time.monotonic()
        try:
            value, seconds = yield from self._run(loader)
            data, left = self.payload(key, name, value, wanted, seconds)
        except GeneratorExit:
            raise
        except BaseException:
            try:
                yield from self._script(RELEASE, name, token)
            except Trouble as trouble:
                self._failed("write-failed", key, trouble)
            raise
        try:
            stored = 0
            if left > 0:
                whole = header.pack(generation, versions) + data
                stored = yield from self._script(STORE, name, token, generation, whole, milliseconds(left))
            else:
                yield from self._script(RELEASE, name, token)
                return value, True
        except Trouble as trouble:
            self._failed("write-failed", key, trouble)
            if epoch == self._epoch:
                self.shelf.set(name.value, value, ttl=wanted.ttl)
            return value, True
        if stored == 1:
            self.counted.inserts += 1
            if versions:
                self._tags[name.value] = wanted.tags
            return value, True
        self._events.tell("lease-lost", key)
        return value, stored == -1 or time.monotonic() - began >= self._lease

    def _acquire(self, key: Any, name: Name, token: bytes, seen: bytes) -> Plan[tuple[Any, bytes | None, bool]]:
        """(value, ..) if there is one now; (MISSING, generation, whether we had waited) with the lease; (MISSING, None, True)
        after waiting for as long as is allowed."""
        ticket: Ticket | None = None
        limit = time.monotonic() + 2 * self._lease
        lease = b"%d" % math.ceil(self._lease * 1000)
        try:
            while True:
                channel = b"" if ticket is None else ticket.channel
                data, generation, mine, ms = yield from self._script(JOIN, name, token, lease, channel, header.token(), seen)
                self._generations[name.generation] = generation
                if mine:
                    return MISSING, generation, ticket is not None
                if data is not None:
                    look, more = self._judge(key, name, generation, data, {})
                    if more:
                        look, _ = self._judge(key, name, generation, data, (yield from self._versions(more)))
                    if look.hit:
                        return look.value, generation, True
                    seen = look.seen
                    continue
                left = limit - time.monotonic()
                if left <= 0:
                    return MISSING, None, True
                if ticket is None:
                    ticket = yield Listen(name.value)
                    self.counted.waits += 1
                    continue
                yield Wait(ticket, min(left, ms / 1000 + random.uniform(0.0, JITTER)))
        finally:
            if ticket is not None:
                ticket.close()

    def _run(self, loader: Callable[[], Any]) -> Plan[tuple[Any, float]]:
        start = time.perf_counter()
        try:
            value = yield Run(loader)
        except BaseException:
            self.counted.load_failures += 1
            raise
        seconds = time.perf_counter() - start
        self.counted.loads += 1
        self.counted.load_seconds += seconds
        return value, seconds

    def _alone(self, key: Any, name: Name, loader: Callable[[], Any], wanted: Wanted) -> Plan[Any]:
        """Without the server: what was loaded lately, or a load whose result is kept for a short while."""
        kept = self.shelf.get(name.value, MISSING)
        if kept is not MISSING:
            self.counted.sheltered += 1
            return kept
        epoch = self._epoch
        self.counted.alone += 1
        value, _ = yield from self._run(loader)
        if epoch == self._epoch:
            self.shelf.set(name.value, value, ttl=wanted.ttl)
        return value

    def load_many(self, keys: Sequence[tuple[Any, Name]], loader: Callable[[list[Any]], Any], wanted: Wanted) -> Plan[dict[Any, Any]]:
        """The values of many keys; `loader(list of keys)` is asked once for those that nobody has or loads, and gives a mapping."""
        looks = yield from self.look_many(keys)
        values: dict[Any, Any] = {}
        missing: list[tuple[Any, Name, Look]] = []
        for (key, name), look in zip(keys, looks, strict=True):
            self._count(look.hit)
            if look.hit:
                values[key] = look.value
                continue
            kept = self.shelf.get(name.value, MISSING)
            if kept is not MISSING:
                self.counted.sheltered += 1
                values[key] = kept
            else:
                missing.append((key, name, look))
        if not missing:
            return values
        token = os.urandom(16)
        epoch = self._epoch
        alone = [(key, name) for key, name, look in missing if not look.well]
        asked = [(key, name, look) for key, name, look in missing if look.well]
        versions: list[tuple[str, bytes]] = []
        mine: list[tuple[Any, Name, bytes]] = []
        others: list[tuple[Any, Name]] = []
        try:
            versions = yield from self._tag_versions(wanted.tags)
            lease = b"%d" % math.ceil(self._lease * 1000)
            answers = yield from self._scripts(JOIN, [(name, (token, lease, b"", header.token(), look.seen)) for _, name, look in asked])
        except Trouble as trouble:
            answers = [trouble] * len(asked)
        for (key, name, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Trouble):
                self._failed("write-failed", key, answer)
                alone.append((key, name))
            elif answer[2]:
                self._generations[name.generation] = answer[1]
                mine.append((key, name, answer[1]))
            else:
                others.append((key, name))
        began = time.monotonic()
        wanting = [key for key, *_ in (*mine, *alone)]
        loaded: Mapping[Any, Any] = {}
        stores: list[tuple[Name, tuple[bytes, ...]]] = []
        if wanting:
            try:
                loaded, seconds = yield from self._run(lambda: loader(wanting))
                if not isinstance(loaded, Mapping):
                    raise TypeError(f"loader: expected a mapping of keys to values, got {type(loaded).__name__}")
                for key, name, generation in mine:
                    if key in loaded:
                        data, left = self.payload(key, name, loaded[key], wanted, seconds / len(wanting))
                        if left > 0:
                            stores.append((name, (token, generation, header.pack(generation, versions) + data, milliseconds(left))))
            except GeneratorExit:
                raise
            except BaseException:
                try:
                    yield from self._scripts(RELEASE, [(name, (token,)) for _, name, _ in mine])
                except Trouble as trouble:
                    self._failed("write-failed", None, trouble)
                raise
        held = {name.value for name, _ in stores}
        rest = [(name, (token,)) for _, name, _ in mine if name.value not in held]
        lost: set[bytes] = {name.value for _, name in alone}
        try:
            answers = yield from self._scripts(STORE, stores)
            yield from self._scripts(RELEASE, rest)
        except Trouble as trouble:
            self._failed("write-failed", None, trouble)
            answers = [trouble] * len(stores)
        late: list[tuple[Any, Name]] = []
        by_value = {name.value: key for key, name, _ in mine}
        for (name, _), answer in zip(stores, answers, strict=True):
            if isinstance(answer, Trouble):
                lost.add(name.value)
            elif answer == 1:
                self.counted.inserts += 1
            elif answer == 0 and time.monotonic() - began < self._lease:
                late.append((by_value[name.value], name))      # invalidated while it was loaded
        for key, name in ([(key, name) for key, name, _ in mine] + alone):
            if key in loaded:
                values[key] = loaded[key]
                if name.value in lost and epoch == self._epoch:
                    self.shelf.set(name.value, loaded[key], ttl=wanted.ttl)
        for key, name in (*others, *late):
            value = yield from self._load_one_of_many(key, name, loader, wanted)
            if value is not MISSING:
                values[key] = value
        return values

    def _load_one_of_many(self, key: Any, name: Name, loader: Callable[[list[Any]], Any], wanted: Wanted) -> Plan[Any]:
        """A key that somebody else was loading: mostly it is there by now."""
        value: Any = MISSING
        single = _Single(key, loader)
        for _ in range(LOADS):
            try:
                value, final = yield from self._load_once(key, name, single, wanted, b"")
            except _NotThere:
                return MISSING
            if final:
                break
        return value

    def _script(self, script: Script, name: Name, *arguments: bytes) -> Plan[Any]:
        answers = yield from self._scripts(script, [(name, arguments)])
        if isinstance(answers[0], Trouble):
            raise answers[0]
        return answers[0]

    def _scripts(self, script: Script, calls: Sequence[tuple[Name, tuple[bytes, ...]]]) -> Plan[list[Any]]:
        """A script on the keys of each name. Each may be sent twice: a token that is there already is ours, one that is gone
        stays gone."""
        def command(how: str, what: bytes, call: tuple[Name, tuple[bytes, ...]]) -> Command:
            name, arguments = call
            return (how, what, 4, name.value, name.generation, name.lease, name.waiters, *arguments)

        if not calls:
            return []
        answers: list[Any] = []
        for first in range(0, len(calls), CHUNK):
            part = calls[first:first + CHUNK]
            got: list[Any]
            if len(part) == 1:
                try:
                    got = [(yield Call(command("EVALSHA", script.digest, part[0]), again=script is not STORE))]
                except Trouble as trouble:
                    got = [trouble]
            else:
                got = yield Batch([command("EVALSHA", script.digest, call) for call in part], again=script is not STORE)
            unknown = [at for at, answer in enumerate(got) if isinstance(answer, Trouble) and _unknown_script(answer)]
            if unknown:
                more = yield Batch([command("EVAL", script.text, part[at]) for at in unknown], again=False)
                for at, answer in zip(unknown, more, strict=True):
                    got[at] = answer
            answers += got
        return answers

    # -- on the side

    def _local_change(self, names: Sequence[Name] | None) -> None:
        """This process writes or invalidates: nothing older may be served from here. Before, and again after, the server knows."""
        self._epoch += 1
        if names is None:
            self.shelf.clear()
            for near in self.nears:
                near.clear()
            return
        for name in names:
            self.shelf.pop(name.value, None)
            for near in self.nears:
                near.forget(name.value)

    def _owe_key(self, key: Any, name: Name, why: Trouble) -> None:
        self._debts.owe_key(key, name, self, why.error)

    def _failed(self, kind: str, key: Any, trouble: Trouble) -> None:
        self._events.tell(kind, key, trouble.error)

    def _count(self, hit: bool) -> None:
        if hit:
            self.counted.hits += 1
        else:
            self.counted.misses += 1


class _NotThere(Exception):
    """The loader of many does not know this key."""


class _Single:
    """A loader of many, asked for one key; for threads and, where it gives an awaitable, for tasks."""

    def __init__(self, key: Any, loader: Callable[[list[Any]], Any]) -> None:
        self._key = key
        self._loader = loader

    def __call__(self) -> Any:
        loaded = self._loader([self._key])
        return self._later(loaded) if hasattr(loaded, "__await__") else self._one(loaded)

    async def _later(self, loaded: Any) -> Any:
        return self._one(await loaded)

    def _one(self, loaded: Mapping[Any, Any]) -> Any:
        if self._key not in loaded:
            raise _NotThere
        return loaded[self._key]


def _unknown_script(trouble: Trouble) -> bool:
    return type(trouble.error).__name__ == "NoScriptError"

"""Generations and the versions of tags: reading them, and making those that are not there. Plans of a round trip each."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from adaptcache.backends import header
from adaptcache.backends.space import Space
from adaptcache.backends.steps import Batch, Call, Command, Plan, Trouble

TAG_MS = b"%d" % (30 * 86_400_000)      # a tag that nobody has named for so long is forgotten, and what carries it with it


def versions_of(space: Space, tags: Sequence[str]) -> Plan[dict[str, bytes | None]]:
    """The versions that tags have now."""
    if not tags:
        return {}
    places = [space.names.tag(tag) for tag in tags]
    if space.cluster:
        versions = yield Batch([("GET", place) for place in places])
        for answer in versions:
            if isinstance(answer, Trouble):
                raise answer
    else:
        versions = yield Call(("MGET", *places))
    return dict(zip(tags, versions, strict=True))


def know_generations(space: Space, places: Iterable[bytes]) -> Plan[dict[bytes, bytes]]:
    """The generations at these places as this process knows them; those that it does not know are read, or made. Other threads may
    clear the space at any moment, so what is written goes by this answer."""
    known = {place: space.generations.get(place, b"") for place in places}
    unknown = [place for place, generation in known.items() if not generation]
    if unknown:
        made = dict(zip(unknown, (yield from _make({place: () for place in unknown})), strict=True))
        space.generations.update(made)
        known.update(made)
    return known


def make_versions(space: Space, tags: Sequence[str]) -> Plan[list[tuple[str, bytes]]]:
    """The versions to write with a value; those that are not there are made."""
    if not tags:
        return []
    answers = yield from _make({space.names.tag(tag): (b"PX", TAG_MS) for tag in tags})
    return list(zip(tags, answers, strict=True))


def _make(places: Mapping[bytes, tuple[bytes, ...]]) -> Plan[list[bytes]]:
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

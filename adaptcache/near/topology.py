"""A cluster: which node's lease covers a key, and when it does.

Every primary has a connection of its own, and a lease of its own. A key's entry is under the lease of the primary that owns
its slot. Two things keep an entry from being without a watcher when slots move:

- every server names its invalidations to everybody who listens, so it does not matter under whose lease an entry is: a write that any
  watched primary executes drops it;
- with every HELLO a node is asked for CLUSTER NODES. A lease covers a node's slots only while its own view and those of all other watched
  nodes agree on what it owns, while it sees a majority of the primaries, and, where it hands slots over (MIGRATING), while the node that
  takes them is listened to. When what a node owns or hands over changes, its lease ends and a new one begins.

A lease is one object, so all of this is O(1) in the number of entries. This file knows no socket and no redis-py.
"""
from __future__ import annotations

import threading
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from adaptcache.near.resp import pack
from adaptcache.near.tier import OVER, Lease, Tier
from adaptcache.near.watch import Lost

SLOTS = 1 << 14
Address = tuple[str, int]


def slot_of(key: bytes) -> int:
    """The slot of a key: of what stands in its first braces, if something does."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1:end]
    return crc_hqx(key, 0) % SLOTS


class Place(NamedTuple):
    """Where a node says that another is."""

    ip: str
    port: int
    hostname: str


@dataclass(frozen=True, slots=True)
class View:
    """What one node says of the cluster. `owned`: of each primary with slots, the slots as ranges."""

    me: str
    owned: Mapping[str, tuple[tuple[int, int], ...]]
    places: Mapping[str, Place]
    moving: frozenset[str]          # the nodes that take slots from this one
    quorum: bool                    # it sees a majority of the primaries


def view_of(text: bytes) -> View:
    """CLUSTER NODES, read. ValueError if it is none."""
    me = ""
    owned: dict[str, tuple[tuple[int, int], ...]] = {}
    places: dict[str, Place] = {}
    moving: set[str] = set()
    seen = 0
    for line in text.decode().splitlines():
        name, where, flags, _, _, _, _, _, *slots = line.split()
        marks = flags.split(",")
        if "myself" in marks:
            me = name
            moving = {slot[1:-1].split("->-")[1] for slot in slots if "->-" in slot}
        ranges = tuple(_range(slot) for slot in slots if not slot.startswith("["))
        if "master" in marks and ranges:
            owned[name] = ranges
            seen += not {"fail", "fail?"} & set(marks)
            address, _, rest = where.partition("@")
            ip, _, port = address.rpartition(":")
            hostname = rest.split(",")[1] if "," in rest else ""
            places[name] = Place(ip, int(port), hostname)
    if not me:
        raise ValueError("CLUSTER NODES without a line of the node itself")
    return View(me, owned, places, frozenset(moving), 2 * seen > len(owned))


def _range(slots: str) -> tuple[int, int]:
    first, _, last = slots.partition("-")
    return int(first), int(last or first)


class Nodes(Protocol):
    """What the application's client knows of its cluster."""

    def known(self) -> Iterable[Address]: ...
    def address(self, place: Place, asked: Address) -> Address: ...


class Topology:
    """The nodes that are listened to, and the lease of each slot. `recruit` begins to listen to a node."""

    def __init__(self, tier: Tier, nodes: Nodes, recruit: Callable[[Node], None]) -> None:
        self.tier = tier
        self.nodes = nodes
        self.recruit = recruit
        self.lock = threading.RLock()
        self.members: dict[Address, Node] = {}
        self.slots: list[Node | None] = [None] * SLOTS
        tier.lease_of = self.lease_of
        tier.leases = lambda: [member.lease for member in list(self.members.values())]
        # All of them: whoever takes over a slot must tell of the same prefixes.
        tier.covers = lambda: min((member.covers for member in list(self.members.values()) if member.lease.until != OVER), default=0)

    def start(self) -> None:
        with self.lock:
            for address in self.nodes.known():
                self._add(address)

    def lease_of(self, key: bytes) -> Lease:
        node = self.slots[slot_of(key)]
        return _NOBODYS if node is None else node.lease

    def _add(self, address: Address, name: str = "") -> None:
        if address not in self.members:
            node = self.members[address] = Node(self, address, name)
            self.recruit(node)

    # -- called by nodes, with the lock

    def settle(self) -> None:
        """Some view has changed, or is gone: who covers what now?"""
        views = [node.view for node in self.members.values() if node.view is not None]
        slots: list[Node | None] = [None] * SLOTS
        for node in self.members.values():
            view = node.view
            owned = None if view is None else view.owned.get(view.me)
            if view is None or not view.quorum or any(each.owned.get(view.me) != owned for each in views):
                owned = None
            # Who takes slots over may have been unwatched for a moment before we heard of it: that, too, is a change.
            takers: frozenset[str] = frozenset() if view is None else view.moving
            if (owned, takers) != (node.owned, node.takers):
                node.end()
            node.owned, node.takers = owned, takers
            for first, last in owned or ():
                slots[first:last + 1] = [node] * (last + 1 - first)
        self.slots = slots
        for node in self.members.values():
            self.extend(node)
        self._recruit(views)

    def extend(self, node: Node) -> None:
        """Move a node's lease on to what has been proved."""
        if node.owned is None:
            return
        proofs = [node.sent]
        for name in node.takers:
            taker = next((each for each in self.members.values() if each.view is not None and each.view.me == name), None)
            proofs.append(OVER if taker is None else taker.sent)
        until = min(proofs) + self.tier.options.window
        now = self.tier.clock()
        if not now < until:
            node.end()
            return
        if not now < node.lease.until:
            node.end()
            self.tier.connects += 1
            node.lease = Lease(until)
        node.lease.until = until

    def _recruit(self, views: list[View]) -> None:
        """Listen to primaries that nobody listens to."""
        if not all(node.tried for node in self.members.values()):
            return      # whose names are not known yet
        here = {view.me for view in views}
        for node in list(self.members.values()):
            if node.view is not None:
                for name, place in node.view.places.items():
                    if name not in here:
                        here.add(name)
                        self._add(self.nodes.address(place, node.address), name)
        if not views:
            for address in self.nodes.known():
                self._add(address)

    def wanted(self, node: Node) -> bool:
        others = [each.view for each in self.members.values() if each is not node and each.view is not None]
        if not others:
            return True
        if not node.name:
            return node.address in self.nodes.known()
        return any(node.name in view.owned for view in others) and all(view.me != node.name for view in others)


class Node:
    """Keeps the lease of one node of a cluster."""

    more = pack(b"CLUSTER", b"NODES")
    answers = 1
    covers = 0

    def __init__(self, topology: Topology, address: Address, name: str) -> None:
        self._topology = topology
        self.address = address
        self.name = name
        self.lease = Lease()
        self.view: View | None = None       # None while it is not listened to
        self.owned: tuple[tuple[int, int], ...] | None = None       # None unless all views agree
        self.takers: frozenset[str] = frozenset()       # the nodes that it hands slots to
        self.sent = OVER
        self.tried = False

    def where(self) -> object:
        return self.address

    def wanted(self) -> bool:
        with self._topology.lock:
            wanted = self._topology.wanted(self)
            if not wanted:
                self._topology.members.pop(self.address, None)
                self._topology.settle()
            return wanted

    def proved(self, sent: float, replies: Sequence[Any]) -> None:
        try:
            view = view_of(replies[0])
        except (ValueError, AttributeError) as error:
            raise Lost(f"CLUSTER NODES: {replies[0]!r} ({error})", refused=True) from None
        topology = self._topology
        with topology.lock:
            self.tried = True
            self.name = view.me
            self.sent = sent
            changed, self.view = view != self.view, view
            if changed:
                topology.settle()
            else:
                for node in topology.members.values():
                    if node is self or view.me in node.takers:
                        topology.extend(node)

    def flushed(self) -> None:
        until = self.lease.until
        self.end()
        self.lease = Lease(until)

    def lost(self, error: Lost) -> None:
        topology = self._topology
        if self.lease.until != OVER:
            topology.tier.losses += 1
        with topology.lock:
            self.tried = True
            self.view = None
            topology.settle()
        if all(lease.until == OVER for lease in topology.tier.leases()):
            topology.tier.clear()

    def end(self) -> None:
        self.lease.until = OVER


_NOBODYS = Lease()

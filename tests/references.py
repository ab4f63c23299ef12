"""Plain references that a reader believes: policies, a timer wheel, a hash table, Belady's optimum.

Lists and dicts only, as slow as they like. What the core does is right when it agrees with these.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence


class Reference:
    """A cache without expiry: sizes, and a policy that names who leaves.

    A policy is a subclass: it is told of insertions, hits and removals, and answers `victim`.
    `order` lists what is held from the oldest to the newest. `sizes` has the newcomer when it is inserted, the new
    size when an entry is weighed or hit, and still has what is removed. Keys stand for their hashes.
    """

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.sizes: dict[Hashable, float] = {}
        self.order: list[Hashable] = []
        self.cost: float | None = None      # of the entry that is being stored, where it was told

    def coming(self, key: Hashable, size: float) -> None:
        """This key is not held, and will be inserted once victims have made room."""

    def insert(self, key: Hashable) -> None:
        self.order.append(key)

    def hit(self, key: Hashable) -> None:
        raise NotImplementedError

    def weigh(self, key: Hashable, before: float) -> None:
        """Overwritten with another size; `hit` follows."""

    def remove(self, key: Hashable, evicted: bool) -> None:
        """evicted: as the victim that makes room; else deleted, popped or over."""
        self.order.remove(key)

    def victim(self) -> Hashable:
        raise NotImplementedError

    def resized(self) -> None:
        """`capacity` has changed; victims are asked for afterwards."""

    def forget(self) -> None:
        """Cleared: nothing is held, and nothing is remembered either."""

    # -- what a cache does with it

    @property
    def total(self) -> float:
        return sum(self.sizes.values())

    def get(self, key: Hashable) -> bool:
        if key not in self.sizes:
            return False
        self.hit(key)
        return True

    def delete(self, key: Hashable, evicted: bool = False) -> None:
        if key in self.sizes:
            self.remove(key, evicted)
            del self.sizes[key]

    def popitem(self) -> Hashable:
        key = self.victim()
        self.delete(key)
        return key

    def evict(self) -> Hashable:
        key = self.victim()
        self.delete(key, evicted=True)
        return key

    def set(self, key: Hashable, size: float = 1, cost: float | None = None) -> list[Hashable]:
        """Store, and say who was evicted for it. ValueError when it can never fit."""
        if size > self.capacity:
            raise ValueError("value too large")
        evicted = []
        while key in self.sizes and self.total - self.sizes[key] + size > self.capacity:
            # An entry that grows pushes others out; when it is the victim itself, it starts anew.
            victim = self.victim()
            self.delete(victim, evicted=victim != key)
            if victim != key:
                evicted.append(victim)
        self.cost = cost
        if key in self.sizes:
            before, self.sizes[key] = self.sizes[key], size
            if size != before:
                self.weigh(key, before)
            self.hit(key)
        else:
            self.coming(key, size)
            while self.total + size > self.capacity:
                evicted.append(self.evict())
            self.sizes[key] = size
            self.insert(key)
        self.cost = None
        return evicted

    def clear(self) -> None:
        for key in list(self.order):
            self.delete(key)
        self.forget()

    def resize(self, capacity: float) -> None:
        self.capacity = capacity
        self.resized()
        while self.total > capacity:
            self.evict()


class FIFO(Reference):
    """The oldest insertion leaves."""

    def hit(self, key: Hashable) -> None:
        pass

    def victim(self) -> Hashable:
        return self.order[0]


class LRU(Reference):
    """The one leaves that was not used for longest."""

    def hit(self, key: Hashable) -> None:
        self.order.remove(key)
        self.order.append(key)

    def victim(self) -> Hashable:
        return self.order[0]


class SIEVE(Reference):
    """A hand moves from the oldest to the newest and round again; it spares, once, what was visited."""

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.visited: set[Hashable] = set()
        self.hand: Hashable | None = None       # None: at the oldest

    def hit(self, key: Hashable) -> None:
        self.visited.add(key)

    def newer(self, key: Hashable) -> Hashable | None:
        after = self.order.index(key) + 1
        return self.order[after] if after < len(self.order) else None

    def remove(self, key: Hashable, evicted: bool) -> None:
        if key == self.hand:
            self.hand = self.newer(key)
        self.visited.discard(key)
        super().remove(key, evicted)

    def victim(self) -> Hashable:
        key = self.order[0] if self.hand is None else self.hand
        while key in self.visited:
            self.visited.remove(key)
            after = self.newer(key)
            key = self.order[0] if after is None else after
        self.hand = key
        return key


# Every policy of the core, by name: listing one here is all it takes to have it checked everywhere.
POLICIES: dict[str, type[Reference]] = {"fifo": FIFO, "lru": LRU, "sieve": SIEVE}


def optimum(requests: Sequence[int], capacity: int) -> int:
    """The most hits that any policy can have that stores every miss, by trying all of them."""

    def best(i: int, held: frozenset[int]) -> int:
        if i == len(requests):
            return 0
        key = requests[i]
        if key in held:
            return 1 + best(i + 1, held)
        if len(held) < capacity:
            return best(i + 1, held | {key})
        return max(best(i + 1, held - {out} | {key}) for out in held)

    return best(0, frozenset())


def next_uses(requests: Sequence[int]) -> list[int]:
    """For each request the index of the next one of its key; a number beyond all when there is none."""
    return [
        next((j for j in range(i + 1, len(requests)) if requests[j] == key), 10**9)
        for i, key in enumerate(requests)
    ]


class Timers:
    """A timer wheel as a list: by time, and first come, first served among equals.

    `reached` is how far time has been turned: whatever is scheduled before it counts as due then.
    """

    def __init__(self, base: int) -> None:
        self.reached = base
        self.scheduled: dict[int, tuple[int, int]] = {}     # timer -> (when it fires, turn)
        self.turn = 0

    def schedule(self, timer: int, when: int) -> None:
        self.turn += 1
        self.scheduled[timer] = (max(when, self.reached), self.turn)

    def cancel(self, timer: int) -> None:
        self.scheduled.pop(timer, None)

    def pop(self, now: int) -> int | None:
        """The next timer due at `now`, or None."""
        due = min(self.scheduled, key=self.scheduled.__getitem__, default=None)
        if due is None or self.scheduled[due][0] > max(now, self.reached):
            self.reached = max(now, self.reached)
            return None
        self.reached = self.scheduled.pop(due)[0]
        return due


class Slots:
    """A table as a dict: hash -> the slots that were filed under it."""

    def __init__(self) -> None:
        self.of: dict[int, set[int]] = defaultdict(set)

    def insert(self, hash: int, slot: int) -> None:
        self.of[hash].add(slot)

    def remove(self, hash: int, slot: int) -> None:
        self.of[hash].remove(slot)

    def __len__(self) -> int:
        return sum(map(len, self.of.values()))

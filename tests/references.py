"""Plain references that a reader believes: policies, a timer wheel, a hash table, Belady's optimum.

Lists and dicts only, as slow as they like. What the core does is right when it agrees with these.
"""
from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import cache
from itertools import accumulate, pairwise
from operator import itemgetter

import numpy as np


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

    @classmethod
    def replayed(cls, capacity: int) -> Reference:
        """As it is in the simulator's loop, where there is room for all from the beginning."""
        return cls(capacity)

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


class SLRU(Reference):
    """Hit on probation, protected; protected are at most four fifths, and what is too much goes back on probation."""

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.probation: list[Hashable] = []
        self.protected: list[Hashable] = []

    @property
    def order(self) -> list[Hashable]:  # type: ignore[override]
        return self.probation + self.protected

    @order.setter
    def order(self, nothing: list[Hashable]) -> None:
        pass

    def insert(self, key: Hashable) -> None:
        self.probation.append(key)

    def hit(self, key: Hashable) -> None:
        self.remove(key, False)
        self.protected.append(key)
        self.resized()

    def remove(self, key: Hashable, evicted: bool) -> None:
        (self.probation if key in self.probation else self.protected).remove(key)

    def resized(self) -> None:
        while sum(self.sizes[key] for key in self.protected) > self.capacity * 4 / 5:
            self.probation.append(self.protected.pop(0))

    def victim(self) -> Hashable:
        return self.order[0]


class LFU(Reference):
    """The least often used leaves; of several, the one that came to that count first."""

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.uses: dict[Hashable, int] = {}     # in the order in which they came to their counts

    @property
    def order(self) -> list[Hashable]:  # type: ignore[override]
        return sorted(self.uses, key=lambda key: self.uses[key])     # those of one count stay in their order

    @order.setter
    def order(self, nothing: list[Hashable]) -> None:
        pass

    def insert(self, key: Hashable) -> None:
        self.uses[key] = 1

    def hit(self, key: Hashable) -> None:
        self.uses[key] = self.uses.pop(key) + 1

    def remove(self, key: Hashable, evicted: bool) -> None:
        del self.uses[key]

    def victim(self) -> Hashable:
        return self.order[0]

    def age(self) -> None:
        self.uses = {key: (self.uses[key] + 1) // 2 for key in self.order}


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


class S3FIFO(Reference):
    """A small queue of newcomers, a main queue of what was hit twice there or came back, and ghosts of what left."""

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.small: list[Hashable] = []
        self.main: list[Hashable] = []
        self.hits: dict[Hashable, int] = {}
        self.ghosts: dict[Hashable, float] = {}     # key -> its size; the oldest stands first
        self.known = False
        self.full = False                           # something was evicted since nothing was held

    @property
    def order(self) -> list[Hashable]:  # type: ignore[override]
        return self.small + self.main

    def weight_of_small(self) -> float:
        return sum(self.sizes[key] for key in self.small)

    @order.setter
    def order(self, nothing: list[Hashable]) -> None:
        pass

    def coming(self, key: Hashable, size: float) -> None:
        self.known = self.ghosts.pop(key, None) is not None

    def insert(self, key: Hashable) -> None:
        self.hits[key] = 0
        filling = not self.full and self.weight_of_small() >= self.capacity / 10
        (self.main if self.known or filling else self.small).append(key)

    def hit(self, key: Hashable) -> None:
        self.hits[key] = min(3, self.hits[key] + 1)

    def remove(self, key: Hashable, evicted: bool) -> None:
        del self.hits[key]
        self.full = bool(self.hits) and (self.full or evicted)
        if key in self.main:
            self.main.remove(key)
            return
        self.small.remove(key)
        if not evicted:
            return
        size, most = self.sizes[key], self.capacity * 9 / 10
        while self.ghosts and (sum(self.ghosts.values()) + size > most or len(self.ghosts) >= len(self.sizes)):
            del self.ghosts[next(iter(self.ghosts))]
        if size <= most:
            self.ghosts[key] = size

    def forget(self) -> None:
        self.ghosts.clear()

    def victim(self) -> Hashable:
        while True:
            if self.small and (self.weight_of_small() >= self.capacity / 10 or not self.main):
                key = self.small[0]
                if self.hits[key] < 2:
                    return key
                self.main.append(self.small.pop(0))
                self.hits[key] = 0
            else:
                key = self.main[0]
                if self.hits[key] == 0:
                    return key
                self.main.append(self.main.pop(0))
                self.hits[key] -= 1


class LIRS(Reference):
    """Hot and cold entries; a cold key turns hot when its last use is newer than that of the hot one used last longest ago.

    The paper's stack S, from its bottom, is `stack`: all keys whose last use is newer, hot, cold, or no longer held.
    """

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.stack: list[Hashable] = []             # by last use; at the bottom a hot one, if there is any
        self.hot: set[Hashable] = set()
        self.cold: list[Hashable] = []              # the queue Q
        self.ghosts: list[Hashable] = []            # on the stack, not held; by when they left
        self.soon = False

    @property
    def order(self) -> list[Hashable]:  # type: ignore[override]
        return self.cold + [key for key in self.stack if key in self.hot]

    @order.setter
    def order(self, nothing: list[Hashable]) -> None:
        pass

    def weight_of_hot(self) -> float:
        return sum(self.sizes[key] for key in self.hot)

    def prune(self) -> None:
        """The bottom is hot: what lies below the last hot one counts no more."""
        while self.stack and self.stack[0] not in self.hot:
            self.stack.pop(0)
        self.ghosts = [key for key in self.ghosts if key in self.stack]

    def resized(self) -> None:
        while self.weight_of_hot() > self.capacity * 99 / 100:
            key = self.stack.pop(0)
            self.hot.remove(key)
            self.cold.append(key)
            self.prune()

    def settle(self, key: Hashable, hot: bool) -> None:
        if key in self.stack:
            self.stack.remove(key)
        self.stack.append(key)
        if hot or self.weight_of_hot() + self.sizes[key] <= self.capacity * 99 / 100:
            self.hot.add(key)
            self.resized()
        else:
            self.cold.append(key)
        self.prune()

    def coming(self, key: Hashable, size: float) -> None:
        self.soon = key in self.ghosts
        if self.soon:
            self.ghosts.remove(key)
            self.stack.remove(key)

    def insert(self, key: Hashable) -> None:
        self.settle(key, self.soon)

    def hit(self, key: Hashable) -> None:
        if key in self.hot:
            self.stack.remove(key)
            self.stack.append(key)
            self.prune()
            self.resized()
        else:
            self.cold.remove(key)
            self.settle(key, key in self.stack)

    def remove(self, key: Hashable, evicted: bool) -> None:
        if key in self.hot:
            self.hot.remove(key)
            self.stack.remove(key)
        else:
            self.cold.remove(key)
            if evicted and key in self.stack:
                while len(self.ghosts) >= len(self.sizes):
                    self.stack.remove(self.ghosts.pop(0))
                self.ghosts.append(key)
            elif key in self.stack:
                self.stack.remove(key)
        self.prune()

    def forget(self) -> None:
        self.stack, self.ghosts = [], []

    def victim(self) -> Hashable:
        return self.order[0]


class GDSF(Reference):
    """The least of clock + uses × cost / size leaves, and the clock moves on to it; of several, the one used last longest ago.

    The clock is set back to nought, and all else with it, whenever as many have been evicted as are held.
    """

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.clock = 0.0
        self.turn = 0
        self.evicted = 0
        self.uses: dict[Hashable, int] = {}
        self.costs: dict[Hashable, float] = {}
        self.priority: dict[Hashable, tuple[float, int]] = {}   # and the turn of the last use

    def use(self, key: Hashable) -> None:
        size = self.sizes[key]
        value = self.uses[key] * self.costs[key] / size if size else 1e200
        self.turn += 1
        self.priority[key] = self.clock + min(value, 1e200), self.turn

    def insert(self, key: Hashable) -> None:
        super().insert(key)
        self.uses[key] = 1
        self.costs[key] = 1 if self.cost is None else self.cost
        self.use(key)

    def hit(self, key: Hashable) -> None:
        self.uses[key] += 1
        if self.cost is not None:
            self.costs[key] = self.cost
        self.use(key)

    def remove(self, key: Hashable, evicted: bool) -> None:
        super().remove(key, evicted)
        gone, _ = self.priority.pop(key)
        if evicted:
            self.clock = gone
            self.evicted += 1
            if self.evicted >= len(self.priority):
                self.settle()

    def settle(self) -> None:
        self.priority = {key: (priority - self.clock, turn) for key, (priority, turn) in self.priority.items()}
        self.clock = 0.0
        self.evicted = 0

    def forget(self) -> None:
        self.settle()

    def victim(self) -> Hashable:
        return min(self.priority, key=lambda key: self.priority[key])


class ARC(Reference):
    """Used once, used again, and the ghosts of both: T1, T2, B1 and B2 of the paper; p is what T1 may weigh."""

    def __init__(self, capacity: float) -> None:
        super().__init__(capacity)
        self.t1: list[Hashable] = []
        self.t2: list[Hashable] = []
        self.forget()
        self.unsung: Hashable | None = None     # the victim that leaves no ghost

    def forget(self) -> None:
        self.b1: dict[Hashable, float] = {}     # key -> its size; the oldest first
        self.b2: dict[Hashable, float] = {}
        self.p: float = 0
        self.room: float = 0                    # for the newcomer
        self.known: str = ""                    # the ghosts among which it was

    @property
    def order(self) -> list[Hashable]:  # type: ignore[override]
        return self.t1 + self.t2

    @order.setter
    def order(self, nothing: list[Hashable]) -> None:
        pass

    def weight(self, keys: list[Hashable]) -> float:
        return sum(self.sizes[key] for key in keys)

    def trim_one(self, more: float = 0) -> None:
        """|T1| + |B1| is at most c."""
        while self.b1 and self.weight(self.t1) + sum(self.b1.values()) + more > self.capacity:
            del self.b1[next(iter(self.b1))]

    def trim_all(self, more: float = 0) -> None:
        """All four lists together are at most 2 c."""
        while self.b2 and self.weight(self.order) + sum(self.b1.values()) + sum(self.b2.values()) + more > 2 * self.capacity:
            del self.b2[next(iter(self.b2))]

    def trim(self) -> None:
        self.trim_one()
        self.trim_all()

    def coming(self, key: Hashable, size: float) -> None:
        self.room = size
        self.known = "b1" if key in self.b1 else "b2" if key in self.b2 else ""
        one, two = sum(self.b1.values()), sum(self.b2.values())
        if self.known == "b1":
            self.p = min(self.p + max(1, two / one if one else 1) * self.b1.pop(key), self.capacity)
        elif self.known == "b2":
            self.p = max(self.p - max(1, one / two if two else 1) * self.b2.pop(key), 0)

    def insert(self, key: Hashable) -> None:
        (self.t2 if self.known else self.t1).append(key)
        self.trim()
        self.room, self.known = 0, ""

    def hit(self, key: Hashable) -> None:
        (self.t1 if key in self.t1 else self.t2).remove(key)
        self.t2.append(key)

    def weigh(self, key: Hashable, before: float) -> None:
        self.trim()

    def remove(self, key: Hashable, evicted: bool) -> None:
        held, ghosts = (self.t1, self.b1) if key in self.t1 else (self.t2, self.b2)
        if evicted and key != self.unsung:
            while len(self.b1) + len(self.b2) >= len(self.order):
                longer = self.b2 if len(self.b2) > len(self.b1) else self.b1
                del longer[next(iter(longer))]
            ghosts[key] = self.sizes[key]
        held.remove(key)
        self.trim()

    def victim(self) -> Hashable:
        self.unsung = None
        if not self.known:
            self.trim_one(self.room)
            if self.t1 and self.weight(self.t1) + self.room > self.capacity:
                self.unsung = self.t1[0]
                return self.unsung
            self.trim_all(self.room)
        # The paper's REPLACE.
        once = self.weight(self.t1)
        if self.t1 and (not self.t2 or once > self.p or (once == self.p and self.known == "b2")):
            return self.t1[0]
        return self.t2[0]

    def resized(self) -> None:
        self.p = min(self.p, self.capacity)
        self.trim()


MASK = 2**64 - 1


class Sketch:
    """A count of each key, in four of the counters of one block; see `_ext/sketch.pxd` for which. The least of them is right.

    Counts end at 15. After ten additions a key they are halved, eight blocks at each addition from there on.
    """

    KEYS, LEAST, STRIDE = 4, 16, 8      # keys to a block, blocks at first, blocks halved at an addition

    def __init__(self, salt: int = 0) -> None:
        self.salt = salt
        self.blocks: list[dict[tuple[int, int], int]] = [{} for _ in range(self.LEAST)]    # (row, counter) -> count
        self.additions = 0
        self.to_halve: list[dict[tuple[int, int], int]] = []
        self.odd = 0

    def counters(self, key: int) -> tuple[dict[tuple[int, int], int], list[tuple[int, int]]]:
        h = (hash(key) ^ self.salt) & MASK
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB & MASK
        h ^= h >> 31
        return self.blocks[h % len(self.blocks)], [(row, (h >> 44 + 5 * row) % 32) for row in range(4)]

    def count(self, key: int) -> int:
        block, counters = self.counters(key)
        return min(block.get(counter, 0) for counter in counters)

    def add(self, key: int) -> None:
        block, counters = self.counters(key)
        self.additions += any(block.get(counter, 0) < 15 for counter in counters)
        for counter in counters:
            block[counter] = min(15, block.get(counter, 0) + 1)
        if not self.to_halve and self.additions >= 10 * self.KEYS * len(self.blocks):
            self.to_halve = list(self.blocks)
        self.halve(self.STRIDE)

    def halve(self, blocks: int) -> None:
        if not self.to_halve:
            return
        for block in self.to_halve[:blocks]:
            self.odd += sum(n % 2 for n in block.values())
            for counter in block:
                block[counter] //= 2
        del self.to_halve[:blocks]
        if not self.to_halve:
            self.additions = max(0, self.additions - self.odd // 4) // 2
            self.odd = 0

    def fit(self, keys: int) -> None:
        """Twice as many blocks until they suffice; what a block knows, the new one that shares its keys knows too."""
        while len(self.blocks) * self.KEYS < keys:
            self.halve(len(self.blocks))
            self.blocks += [dict(block) for block in self.blocks]


class WTinyLFU(Reference):
    """Newcomers wait in a window; who falls out of it stays if asked for more often than the one who would go.

    Behind the window: SLRU. The window grows when a key comes back that was refused lately, and shrinks, twice as fast,
    when one comes back that was lost from behind it.
    """

    def __init__(self, capacity: float, salt: int = 0) -> None:
        super().__init__(capacity)
        self.salt = salt
        self.parts: dict[str, list[Hashable]] = {"probation": [], "protected": [], "window": []}
        self.start()

    def start(self) -> None:
        self.sketch = Sketch(self.salt)
        self.ghosts: dict[str, dict[Hashable, float]] = {"refused": {}, "lost": {}}     # key -> its size; the oldest first
        self.bound = self.capacity * 0.01       # of the window
        self.room: float = 0                    # that the window is to have for the newcomer
        self.candidates: list[Hashable] = []    # who fell out of the window in this round
        self.contested = False
        self.noise = (self.salt ^ 0x9E3779B97F4A7C15) | 1

    @property
    def order(self) -> list[Hashable]:  # type: ignore[override]
        return [key for part in self.parts.values() for key in part]

    @order.setter
    def order(self, nothing: list[Hashable]) -> None:
        pass

    def weight(self, part: str) -> float:
        return sum(self.sizes[key] for key in self.parts[part])

    def most_protected(self) -> float:
        return 0.8 * (self.capacity - self.bound) if self.capacity < math.inf else 0

    def demote(self) -> None:
        while self.weight("protected") > self.most_protected() and self.parts["protected"]:
            self.parts["probation"].append(self.parts["protected"].pop(0))

    def new_round(self) -> None:
        self.candidates = []
        self.contested = False

    def enter_window(self, key: Hashable) -> None:
        """As the newest; but who is more than all of it would displace the others, and is the next to leave."""
        at = 0 if self.sizes[key] > self.bound else len(self.parts["window"])
        self.parts["window"].insert(at, key)

    def coming(self, key: Hashable, size: float) -> None:
        self.sketch.add(key)  # type: ignore[arg-type]
        self.new_round()
        if key in self.ghosts["refused"]:
            step = min(self.ghosts["refused"].pop(key), self.capacity * 0.02)
            self.bound = min(self.bound + step / 2, self.capacity * 0.9)
        elif key in self.ghosts["lost"]:
            step = min(self.ghosts["lost"].pop(key), self.capacity * 0.02)
            self.bound = max(self.bound - step, self.capacity * 0.01)
        self.room = size

    def overflow(self, size: float) -> None:
        room = size if size <= self.bound else 0
        while self.parts["window"] and self.weight("window") + room > self.bound:
            key = self.parts["window"].pop(0)
            self.parts["probation"].append(key)
            self.candidates.append(key)

    def insert(self, key: Hashable) -> None:
        if not self.contested:
            self.overflow(self.sizes[key])
        self.enter_window(key)
        self.sketch.fit(len(self.order))
        self.room = 0
        self.new_round()

    def hit(self, key: Hashable) -> None:
        self.sketch.add(key)  # type: ignore[arg-type]
        self.new_round()
        part = next(part for part in self.parts if key in self.parts[part])
        if part == "window" and self.sizes[key] > self.bound:
            return
        self.parts[part].remove(key)
        if part == "window":
            self.enter_window(key)
        elif part == "protected" or self.sizes[key] <= self.most_protected():
            self.parts["protected"].append(key)
        else:
            self.parts["probation"].append(key)
        if part != "window":
            self.demote()

    def weigh(self, key: Hashable, before: float) -> None:
        if key in self.parts["window"] and self.sizes[key] > self.bound:
            self.parts["window"].remove(key)
            self.enter_window(key)
        self.demote()

    def remove(self, key: Hashable, evicted: bool) -> None:
        ghosts = self.ghosts["refused" if key in self.candidates or key in self.parts["window"] else "lost"]
        most = len(self.order) // 4 + 1
        if key in self.candidates:
            self.candidates.remove(key)
        for part in self.parts.values():
            if key in part:
                part.remove(key)
        if evicted:
            while len(ghosts) >= most:
                del ghosts[next(iter(ghosts))]
            ghosts[key] = self.sizes[key]

    def victim(self) -> Hashable:
        self.contested = True
        self.overflow(self.room)
        if not self.parts["probation"]:
            return self.order[0]
        oldest = self.parts["probation"][0]
        if not self.candidates or self.candidates[0] == oldest:
            return oldest
        if self.admits(self.candidates[0], oldest):
            self.candidates.pop(0)
            return oldest
        return self.candidates[0]

    def admits(self, candidate: Hashable, oldest: Hashable) -> bool:
        seen = self.sketch.count(candidate)  # type: ignore[arg-type]
        if seen > self.sketch.count(oldest):  # type: ignore[arg-type]
            return True
        if seen < 6:
            return False
        self.noise ^= self.noise << 13 & MASK       # xorshift, Marsaglia 2003
        self.noise ^= self.noise >> 7
        self.noise ^= self.noise << 17 & MASK
        return self.noise >> 57 == 0                # once in 128 times

    def resized(self) -> None:
        if 0 < self.resized_from < math.inf and self.capacity < math.inf:
            self.bound *= self.capacity / self.resized_from
        else:
            self.bound = self.capacity * 0.01
        self.new_round()
        self.demote()

    def resize(self, capacity: float) -> None:
        self.resized_from = self.capacity
        super().resize(capacity)

    def forget(self) -> None:
        self.start()


def mixed(h: int) -> int:
    """64 bits, well stirred (SplitMix64's last steps)."""
    h &= MASK
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB & MASK
    return h ^ (h >> 31)


class Noise:
    """Numbers below a bound, by xorshift (Marsaglia 2003)."""

    def __init__(self, seed: int) -> None:
        self.state = seed | 1

    def below(self, n: int) -> int:
        self.state ^= self.state << 13 & MASK
        self.state ^= self.state >> 7
        self.state ^= self.state << 17 & MASK
        return (self.state >> 32) * n >> 32


TURN = 2**32            # the requests of a cache are counted modulo this
f32 = np.float32        # what the core keeps as a float; all else is a double there and here


class Density:
    """Hits for the memory and the time they take, by kind of entry and bin of age.

    A kind is a class of how often an entry was asked for and one of the gap before the last time, 0 when none is known.
    """

    COUNTS, GAPS, AGES, FINEST = 8, 11, 54, 256
    KINDS = COUNTS * GAPS
    EDGES = [0.0] + [2.0 ** (b // 4) * (1 + b % 4 / 4) for b in range(AGES - 1)]    # of the bins, in parts of FINEST

    def __init__(self, entries: float) -> None:
        # (The last rows are of all kinds together.)
        self.risk = np.zeros((self.KINDS + 1, self.AGES), f32)  # how many more labels got to a bin than to the one before
        self.came = np.zeros((self.KINDS + 1, self.AGES), f32)  # those that came back
        self.told = [0.0] * (self.KINDS + 1)                    # labels
        self.made = [0.0] * (self.KINDS + 1)                    # and how many there were when the values were made
        self.more, self.fewer = ([0.0] * (self.KINDS + 1) for _ in range(2))    # evidence that what was learned is true no more
        self.patience = [16.0] * (self.KINDS + 1)
        self.weight, self.growth = 1.0, 1.0
        self.scale = f32(self.FINEST / entries)
        self.known: dict[int, tuple[list[float], list[float], float, list[float]]] = {}
        self.values: dict[int, list[np.float32]] = {}
        self.due: dict[int, list[np.float32]] = {}
        self.make_all()

    # -- bins and kinds

    def octave(self, span: int, parts: float = 1) -> tuple[int, float]:
        """x = 2**octave * (1 + rest), x being a span of requests, in parts of FINEST or some of them; below 1: (-1, 0)."""
        x = float(f32(span) * self.scale * f32(1 / parts))
        if x < 1:
            return -1, 0
        half, power = math.frexp(x)
        return power - 1, 2 * half - 1

    def bin(self, age: int) -> int:
        octave, rest = self.octave(age)
        return min(1 + 4 * octave + int(4 * rest), self.AGES - 1) if octave >= 0 else 0

    def gap_class(self, gap: int) -> int:
        return min(2 + self.octave(gap, 8)[0], self.GAPS - 1)

    def kind(self, count: int, gap: int) -> int:
        return sum(count >= least for least in (2, 3, 4, 6, 9, 14, 30)) * self.GAPS + gap

    # -- values

    @classmethod
    @cache
    def law(cls, kind: int) -> list[float]:
        """What is believed of a kind that nothing is known of: the share that comes back in each bin, by Pareto's law; but a few are done for."""
        count, gap = divmod(kind, cls.GAPS)
        alpha, start, last = 0.3, 256.0, 0.0
        if count > 0 and gap > 0:
            alpha, start, last = min(4, 0.8 + 0.5 * count), 4 if gap == 1 else 6 * 2.0 ** (gap - 1), 0.01 / 2**count
        waiting = [(start / (start + edge)) ** alpha for edge in cls.EDGES]
        return [float(f32((1 - last) * (a - b) / ((1 - last) * a + last))) for a, b in pairwise(waiting)]

    def row(self, kind: int) -> tuple[list[float], list[float]]:
        """How many got to each bin, and how many came back in it."""
        return np.add.accumulate(self.risk[kind].astype(float)).tolist(), self.came[kind].astype(float).tolist()

    def everyone(self) -> list[float]:
        w = self.weight
        return [(max(back, 0) + 0.01 * w) / (max(reached, back, 0) + w) for reached, back in zip(*self.row(self.KINDS), strict=True)]

    def make(self, kind: int, everyone: list[float]) -> None:
        """The values are of what is known now. They are worked out when they are asked for."""
        self.known[kind] = *self.row(kind), self.weight, everyone
        self.values.pop(kind, None)
        self.due.pop(kind, None)
        self.made[kind] = self.told[kind]

    def make_all(self) -> None:
        everyone = self.everyone()
        for kind in range(self.KINDS):
            self.make(kind, everyone)
        self.made[-1] = self.told[-1]

    def value(self, kind: int, age: int) -> np.float32:
        if kind not in self.values:
            self.values[kind] = [f32(v) for v in self.worked_out(kind)]
        return self.values[kind][self.bin(age)]

    def shares(self, kind: int) -> list[float]:
        """Of those that reach a bin, who come back in it: counted, and leaning on all kinds together and on the law."""
        risk, came, weight, everyone = self.known[kind]
        return [
            (c + weight * (2 * every + 4 * law)) / (max(r, c) + weight * 6)
            for c, r, every, law in zip(came, risk, everyone, self.law(kind), strict=False)
        ]

    def worked_out(self, kind: int) -> list[float]:
        """The best of hits / time over all horizons: the steepest line from each point of a curve to a later one."""
        left, curve = 1.0, [(0.0, 0.0)]
        for share, (begin, end) in zip(self.shares(kind), pairwise(self.EDGES), strict=True):
            hits, time = curve[-1]
            curve.append((hits + left * share, time + left * (end - begin) * (1 - 0.5 * share)))
            left = max(left * (1 - share), 1e-9)
        values = [0.0]
        hull = [curve.pop()]            # from each point the steepest way leads along the upper hull of those behind it
        for hits, time in reversed(curve):
            while len(hull) > 1 and (hull[-1][0] - hits) * (hull[-2][1] - time) <= (hull[-2][0] - hits) * (hull[-1][1] - time):
                hull.pop()
            values.append((hull[-1][0] - hits) / (hull[-1][1] - time))
            hull.append((hits, time))
        return values[::-1]

    # -- learning

    def learned(self, kind: int) -> None:
        self.told[kind] += self.weight
        self.told[-1] += self.weight
        if 2 * (self.told[-1] - self.made[-1]) > self.made[-1] + 64 * self.weight:
            self.make_all()
        elif 4 * (self.told[kind] - self.made[kind]) > self.made[kind] + 64 * self.weight:
            self.make(kind, self.everyone())

    def reached(self, kind: int, first: int, end: int) -> None:
        """Somebody got from one bin to, not including, another."""
        for row in (kind, self.KINDS):
            self.risk[row, first] += f32(self.weight)
            self.risk[row, end] -= f32(self.weight)
        self.learned(kind)

    def back(self, kind: int, b: int) -> None:
        for row in (kind, self.KINDS):
            self.came[row, b] += f32(self.weight)
        self.learned(kind)
        self.weight *= self.growth
        if self.weight > 1e6:
            self.risk = (self.risk.astype(float) / self.weight).astype(f32)
            self.came = (self.came.astype(float) / self.weight).astype(f32)
            self.told = [told / self.weight for told in self.told]
            self.made = [made / self.weight for made in self.made]
            self.weight = 1.0

    def forget(self, kind: int) -> bool:
        """No more than a few labels of this kind count."""
        told, keep = self.told[kind], 512 * self.weight
        if told <= keep:
            return False
        for cells in (self.risk, self.came):
            was = cells[kind].copy()
            cells[kind] = (was.astype(float) * (keep / told)).astype(f32)
            cells[-1] -= was - cells[kind]
        self.told[kind] = keep
        self.told[-1] -= told - keep
        self.made[-1] = min(self.made[-1], self.told[-1])
        return True

    def alarm(self, k: int, due: float, came: bool) -> bool:
        """Page's test of a kind, or of all, for twice as many returns as are due and for half as many."""
        self.patience[k] -= (self.patience[k] - 16) * 0.00005
        self.more[k] = max(0.0, self.more[k] + (math.log(2) * came - due))
        self.fewer[k] = max(0.0, self.fewer[k] + (0.5 * due - math.log(2) * came))
        if max(self.more[k], self.fewer[k]) < self.patience[k]:
            return False
        self.more[k] = self.fewer[k] = 0.0
        self.patience[k] *= 4
        return True

    def surprised(self, kind: int, first: int, end: int, came: bool) -> bool:
        """Somebody got from one bin to another, and came back just before that one, or not yet. Was anything forgotten of all kinds?"""
        if kind not in self.due:
            self.due[kind] = [f32(due) for due in accumulate(self.shares(kind), initial=0.0)]
        due = float(self.due[kind][end]) - float(self.due[kind][first])
        if self.alarm(kind, due, came) and self.forget(kind):
            self.make(kind, self.everyone())
        forgot = False
        if self.alarm(self.KINDS, due, came):
            forgot = any([self.forget(k) for k in range(self.KINDS)])
            self.make_all()
        return forgot

    def rescale(self, entries: float) -> None:
        """What was learned moves by whole octaves to the bins that it belongs to in a cache of another size."""
        before, self.scale = self.scale, f32(self.FINEST / entries)
        ratio, octaves = float(self.scale / before), 0
        while ratio >= 1.414 and octaves < 16:
            ratio, octaves = ratio / 2, octaves + 1
        while ratio < 0.7072 and octaves > -16:
            ratio, octaves = ratio * 2, octaves - 1
        if octaves == 0:
            return
        self.more, self.fewer = ([0.0] * (self.KINDS + 1) for _ in range(2))
        risk, came, told = self.risk, self.came, self.told
        self.risk, self.came, self.told = np.zeros_like(risk), np.zeros_like(came), [0.0] * self.KINDS + told[-1:]
        for kind, b in np.ndindex(self.KINDS, self.AGES):
            count, gap = divmod(kind, self.GAPS)
            to = self.GAPS * count + (min(max(gap + octaves, 1), self.GAPS - 1) if gap else 0)
            at = max(b + 4 * octaves, 0)
            self.told[to] += told[kind] if b == 0 else 0
            if at < self.AGES - 1:
                for row in (to, self.KINDS):
                    self.risk[row, at] += risk[kind, b]
                    self.came[row, at] += came[kind, b]
        self.make_all()


class Track:
    """Of a key in the sample."""

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.tick = self.kind = self.count = self.done = 0


class Trials:
    """A sample of the keys: how long they stay away, and a small cache of them for each way of admission."""

    OPEN, STRICT = 0, 1

    def __init__(self, entries: float, salt: int) -> None:
        self.salt = salt
        self.noise = Noise(salt)
        self.cells: list[Track | None] = [None]     # a hash table; it is walked in its order
        self.most = 0
        self.clear(entries)

    def clear(self, entries: float) -> None:
        self.way = self.OPEN
        self.density = Density(entries)
        self.start(entries)

    def start(self, entries: float) -> None:
        self.entries = entries
        self.cells = [None] * len(self.cells)
        self.hand = 0
        self.held: tuple[list[Track], list[Track]] = [], []     # the small caches, in no order that means anything
        self.latest: list[Track | None] = [None, None]          # their newcomers
        self.labels = 0
        self.widen()

    def widen(self) -> None:
        """As many keys are heard as ever."""
        self.sample, self.trial = (
            int(keys / self.entries * 18446744073709549568.0) if keys < self.entries else MASK for keys in (1024, 128)
        )
        self.room = min(int(self.entries), 128)
        self.lead = self.apart = 0.0
        self.rates()

    def rates(self) -> None:
        half = 32 * self.entries * (float(self.sample) / float(MASK))
        self.density.growth = math.exp2(1 / max(half, 20000))
        self.fading = 1 - 1 / (30.0 * self.room)

    def reserve(self, slots: int) -> None:
        most = min(16 * slots, 8192)
        if most <= self.most:
            return
        self.most, self.hand = most, 0
        tracks, size = [r for r in self.cells if r], len(self.cells)
        while size < 2 * most:
            size *= 2
        self.cells = [None] * size
        for r in tracks:
            self.cells[self.find(r.tag)] = r

    def rescale(self, entries: float) -> None:
        self.density.rescale(entries)
        self.start(entries)

    # -- the records

    @property
    def n(self) -> int:
        return sum(r is not None for r in self.cells)

    def find(self, tag: int) -> int:
        """Its cell, or the one that it would have: the first from its own on."""
        i = tag % len(self.cells)
        while (r := self.cells[i]) and r.tag != tag:
            i = (i + 1) % len(self.cells)
        return i

    def drop(self, i: int) -> None:
        """Those behind it close up, as if it had never been there."""
        for way in (self.OPEN, self.STRICT):
            if self.cells[i] in self.held[way]:
                self.leave(way, self.cells[i])  # type: ignore[arg-type]
        self.cells[i] = None
        while r := self.cells[i := (i + 1) % len(self.cells)]:
            self.cells[i] = None
            self.cells[self.find(r.tag)] = r

    def waited(self, r: Track, b: int, came: bool) -> None:
        """It has got beyond all bins before this one, and came back in the last of them, or not yet."""
        if b > r.done:
            if self.density.surprised(r.kind, r.done, b, came):
                self.lead *= 0.5
                self.apart *= 0.5
                if self.labels >= 30000:
                    self.labels = 30000 - 8192
                    self.widen()
            self.density.reached(r.kind, r.done, b)
            r.done = b

    def sweep(self, now: int) -> None:
        for _ in range(8):
            if r := self.cells[self.hand]:
                b = self.density.bin((now - r.tick) % TURN)
                self.waited(r, b, False)
                if b == Density.AGES - 1:
                    self.drop(self.hand)
                    continue
            self.hand = (self.hand + 1) % len(self.cells)

    def thin(self) -> None:
        """Half as many keys are heard from here on."""
        self.sample //= 2
        if self.trial > self.sample:
            self.trial = self.sample
            self.room = (self.room + 1) // 2
        self.rates()
        i = 0
        while i < len(self.cells):
            r = self.cells[i]
            if r and r.tag > self.sample >> 32:
                self.drop(i)
            else:
                i += 1
        for way in (self.OPEN, self.STRICT):
            while len(self.held[way]) > self.room:
                self.leave(way, self.held[way][-1])

    # -- the small caches

    def leave(self, way: int, r: Track) -> None:
        """The last one takes its place."""
        held = self.held[way]
        held[held.index(r)] = held[-1]
        held.pop()
        if self.latest[way] is r:
            self.latest[way] = None

    def worth(self, r: Track, now: int) -> np.float32:
        return self.density.value(r.kind, (now - r.tick) % TURN)

    def victim(self, way: int, now: int) -> Track:
        held, latest = self.held[way], self.latest[way]
        drawn = [held[self.noise.below(len(held))] for _ in range(4)]
        best = min(drawn, key=lambda r: (self.worth(r, now), -((now - r.tick) % TURN)))
        if latest and refused(way, latest.count, self.worth(latest, now), self.worth(best, now)):
            return latest
        return best

    def try_out(self, r: Track, now: int) -> None:
        hits = [r in held for held in self.held]
        for way in (self.OPEN, self.STRICT):
            if not hits[way]:
                while len(self.held[way]) >= self.room:
                    self.leave(way, self.victim(way, now))
                self.held[way].append(r)
                self.latest[way] = r
        self.lead = self.lead * self.fading + (hits[self.STRICT] - hits[self.OPEN])
        self.apart = self.apart * self.fading + (hits[self.STRICT] != hits[self.OPEN])
        if (self.lead if self.way == self.OPEN else -self.lead) > 2 * math.sqrt(self.apart):
            self.way = self.STRICT if self.way == self.OPEN else self.OPEN

    def hear(self, key: int, kind: int, count: int, now: int) -> None:
        h = mixed(hash(key) & MASK ^ self.salt)
        if h > self.sample or self.most == 0:
            return
        i = self.find(max(h >> 32, 1))
        r = self.cells[i]
        came = r is not None
        if r:
            b = self.density.bin((now - r.tick) % TURN)
            self.waited(r, min(b + 1, Density.AGES - 1), b < Density.AGES - 1)
            if b < Density.AGES - 1:
                self.density.back(r.kind, b)
            self.labels += 1
        elif self.n < self.most:
            r = self.cells[i] = Track(max(h >> 32, 1))
        else:
            self.thin()
            return
        r.tick, r.kind, r.count, r.done = now, kind, min(count, 255), 0
        if h <= self.trial:
            self.try_out(r, now)
        self.sweep(now)
        while came and self.labels == 30000 and (self.sample >= 2**61 or self.sample > self.trial):
            self.thin()


def refused(way: int, count: int, worth: np.float32, least: np.float32) -> bool:
    """Does the newcomer leave, in place of the one that is worth least?"""
    return bool(worth < least * f32(1.3)) or (way == Trials.STRICT and count < 3)


class Memory:
    """What left, by 28 bits of its hash, in buckets of eight: how often it was asked for, at most 15, and when."""

    def __init__(self, salt: int) -> None:
        self.salt = salt

    def fit(self, slots: int) -> None:
        """For a cache of so many it begins anew."""
        self.n = 3 * slots // 8 + 1
        self.forget()

    def forget(self) -> None:
        self.buckets: list[list[tuple[int, int, int] | None]] = [[None] * 8 for _ in range(self.n)]

    def bucket(self, key: int) -> tuple[list[tuple[int, int, int] | None], int]:
        h = mixed(hash(key) & MASK ^ self.salt)
        return self.buckets[(h % 2**32) * len(self.buckets) >> 32], h >> 36

    def put(self, key: int, count: int, tick: int, now: int) -> None:
        """In the first cell that is free, or else in that of the one who left longest ago."""
        bucket, tag = self.bucket(key)
        at = max(range(8), key=lambda i: (now - g[2]) % TURN if (g := bucket[i]) else TURN)
        bucket[at] = tag, min(count, 15), tick

    def take(self, key: int) -> tuple[int, int] | None:
        bucket, tag = self.bucket(key)
        for i, g in reversed(list(enumerate(bucket))):
            if g and g[0] == tag:
                bucket[i] = None
                return g[1:]
        return None


class Store:
    """Slot numbers as the live cache hands them out: the one given back last, else the next; and for how many there is room."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.held: dict[int, Hashable] = {}
        self.free: list[int] = []
        self.top = 1                # those from here on were never handed out

    def take(self, key: Hashable) -> int:
        slot = self.free.pop() if self.free else self.top
        self.top = max(self.top, slot + 1)
        self.held[slot] = key
        return slot

    def give(self, slot: int) -> None:
        del self.held[slot]
        self.free.append(slot)

    def grow(self, most: float) -> bool:
        """Before anything is stored one more slot has to be there; most: entries, with room for one that comes before another leaves."""
        if self.free or self.top < self.cap:
            return False
        cap = self.cap + (self.cap if self.cap < 1024 else self.cap // 10)
        self.cap = int(most) + 2 if most + 2 < cap and self.cap < int(most) + 2 else cap
        return True


class Adaptive(Reference):
    """Who promises least leaves, of the next few slots and the worst of those looked at before; but the last newcomer leaves
    in its place unless it is worth more, or, where the trials found that this pays, was not asked for three times."""

    def __init__(self, capacity: float, slots: int = 8) -> None:
        super().__init__(capacity)
        salt = mixed(77)
        self.trials = Trials(capacity if 1 <= capacity <= 1_000_000 else 1024, salt)
        self.memory = Memory(salt)
        self.now = 0
        self.slots: dict[Hashable, int] = {}
        self.metas: dict[Hashable, tuple[int, int, int]] = {}       # when, how often, the kind
        self.latest: Hashable | None = None
        self.pool: list[tuple[np.float32, int, int]] = []           # worth when it was looked at, slot, and when it was asked for last
        self.hand = 0
        self.making_room = False
        self.weighed = False        # does any entry weigh other than 1?
        self.store = Store(slots)
        self.reserve(slots)

    @classmethod
    def replayed(cls, capacity: int) -> Adaptive:
        return cls(capacity, slots=capacity + 2)

    def reserve(self, slots: int) -> None:
        self.trials.reserve(slots)
        self.memory.fit(slots)

    def set(self, key: Hashable, size: float = 1, cost: float | None = None) -> list[Hashable]:
        if size <= self.capacity:
            self.weighed |= size != 1
            if self.store.grow(math.inf if self.weighed else self.capacity):
                self.reserve(self.store.cap)
        return super().set(key, size, cost)

    # -- what is told

    def coming(self, key: Hashable, size: float) -> None:
        self.making_room = True

    def seen(self, key: Hashable, count: int, gap: int) -> None:
        kind = self.trials.density.kind(count, gap)
        self.metas[key] = self.now, min(count, 255), kind
        if self.capacity < math.inf:
            self.trials.hear(key, kind, count, self.now)  # type: ignore[arg-type]

    def insert(self, key: Hashable) -> None:
        self.slots[key] = self.store.take(key)
        insort(self.order, key, key=self.slots.__getitem__)     # in the order of slots, which means nothing
        self.now = (self.now + 1) % TURN
        count, tick = self.memory.take(key) or (0, None)  # type: ignore[arg-type]
        self.seen(key, count + 1, 0 if tick is None else self.trials.density.gap_class((self.now - tick) % TURN))
        self.latest = key
        self.making_room = False

    def hit(self, key: Hashable) -> None:
        tick, count, _ = self.metas[key]
        self.now = (self.now + 1) % TURN
        self.seen(key, count + 1, self.trials.density.gap_class((self.now - tick) % TURN))

    def remove(self, key: Hashable, evicted: bool) -> None:
        super().remove(key, evicted)
        tick, count, _ = self.metas.pop(key)
        if key == self.latest:
            self.latest = None
        self.memory.put(key, count, tick, self.now)  # type: ignore[arg-type]
        self.store.give(self.slots.pop(key))

    def forget(self) -> None:
        self.memory.forget()
        self.pool = []
        self.latest = None
        self.making_room = False
        self.hand = 0
        self.trials.clear(self.trials.entries)

    # -- what is asked

    def age(self, key: Hashable) -> int:
        return (self.now - self.metas[key][0]) % TURN

    def worth(self, key: Hashable) -> np.float32:
        value, size = self.trials.density.value(self.metas[key][2], self.age(key)), self.sizes[key]
        return f32(float(value) / size) if size > 0 else value

    def look(self) -> bool:
        """At eight slots; the least worth of each half goes into the pool, whose best leaves it when it is full. Was there anybody?"""
        room = min(max(len(self.order) // 8, 1), 16)
        self.hand = self.hand + 8 if self.hand + 8 < self.store.top else 0
        del self.pool[room:]
        drawn = []
        for half in (self.hand, self.hand + 4):
            slots = [slot for slot in range(half, half + 4) if slot in self.store.held and self.worth(self.store.held[slot]) < math.inf]
            if slots:       # (of equals the later one)
                slot = min(slots, key=lambda slot: (self.worth(self.store.held[slot]), -slot))
                drawn.append((self.worth(self.store.held[slot]), slot, self.metas[self.store.held[slot]][0]))
        for one in drawn:
            if len(self.pool) < room or one[0] < self.pool[-1][0]:
                del self.pool[room - 1 :]
                insort(self.pool, one, key=itemgetter(0))
        return bool(drawn)

    def fresh(self, slot: int, tick: int) -> bool:
        """Is it there still, and was not asked for since?"""
        return slot in self.store.held and self.metas[self.store.held[slot]][0] == tick

    def victim(self) -> Hashable:
        n = len(self.order)
        if self.making_room and (n > 2 * self.trials.entries or 2 * n < self.trials.entries):
            self.trials.rescale(n)
        self.making_room = False
        for _ in range(self.store.top // 8 + 1):
            if self.look():
                break
        while self.pool and not self.fresh(*self.pool[0][1:]):
            self.pool.pop(0)
        beyond = [slot for slot in sorted(self.store.held) if slot > self.hand] + sorted(self.store.held)
        key = self.store.held[self.pool[0][1] if self.pool else beyond[0]]
        least, latest = self.pool[0][0] if self.pool else self.worth(key), self.latest
        if latest not in (None, key) and refused(self.trials.way, self.metas[latest][1], self.worth(latest), least):
            return latest
        del self.pool[:1]
        return key


# Every policy of the core, by name: listing one here is all it takes to have it checked everywhere.
POLICIES: dict[str, type[Reference]] = {
    "fifo": FIFO, "lru": LRU, "slru": SLRU, "lfu": LFU, "sieve": SIEVE, "s3fifo": S3FIFO, "arc": ARC, "lirs": LIRS, "wtinylfu": WTinyLFU,
    "gdsf": GDSF, "adaptive": Adaptive,
}


def optimum(requests: Sequence[int], capacity: int, refusing: bool = False) -> int:
    """The most hits that any policy can have that stores every miss, or (refusing) need not, by trying all of them."""

    def best(i: int, held: frozenset[int]) -> int:
        if i == len(requests):
            return 0
        key = requests[i]
        if key in held:
            return 1 + best(i + 1, held)
        if len(held) < capacity:
            return best(i + 1, held | {key})
        return max(best(i + 1, (held | {key}) - {out}) for out in (held | {key} if refusing else held))

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

"""A cluster's leases without a cluster: views that differ and lag, slots that move, nodes that fail over.

The oracle below has servers with versions, who execute writes wherever the slot is by then. Whatever the order in which
invalidations, views and losses come: no value is served that a write acknowledged more than a window ago has replaced.
"""
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from adaptcache.near import NearCache
from adaptcache.near.tier import Tier
from adaptcache.near.topology import Place, Topology, slot_of, view_of
from adaptcache.near.watch import Lost

WINDOW = 2.0
KEYS = [b"k%d" % number for number in range(4)]
SLOTS = sorted(slot_of(key) for key in KEYS)
KEY_OF = {slot_of(key): key for key in KEYS}


def name(number):
    return f"{number:040x}"


def address(number):
    return (f"10.0.0.{number}", 7000 + number)


def nodes_text(me, owners, moving=(), failed=()):
    """CLUSTER NODES. `owners`: slot -> number of its node; `moving`: (slot, taker) of the node itself."""
    lines = []
    for number in sorted({me, *owners.values()}):
        slots = [str(slot) for slot, owner in sorted(owners.items()) if owner == number]
        marks = [f"[{slot}->-{name(taker)}]" for slot, taker in moving] if number == me else []
        flags = ("myself," if number == me else "") + "master" + (",fail?" if number in failed else "")
        host, port = address(number)
        lines.append(" ".join([name(number), f"{host}:{port}@1{port},host{number}", flags, "-", "0", "0", "1", "connected", *slots, *marks]))
    lines.append(f"{name(99)} 10.0.0.99:7099@17099 slave {name(0)} 0 0 1 connected")
    return "\n".join(lines).encode() + b"\n"


class Client:
    def __init__(self, numbers):
        self.numbers = numbers

    def known(self):
        return [address(number) for number in self.numbers]

    def address(self, place, asked):
        return place.ip, place.port


class Bench:
    def __init__(self, *numbers):
        self.now = 1000.0
        self.tier = Tier(NearCache(100, heartbeat=0.5, window=WINDOW), clock=lambda: self.now)
        self.recruited = []
        self.topology = Topology(self.tier, Client(numbers), self.recruited.append)
        self.topology.start()

    def node(self, number):
        return next(node for node in reversed(self.recruited) if node.address == address(number))

    def prove(self, number, owners, sent=None, **more):
        self.node(number).proved(self.now if sent is None else sent, [nodes_text(number, owners, **more)])


OWNERS = {SLOTS[0]: 0, SLOTS[1]: 0, SLOTS[2]: 1, SLOTS[3]: 2}


@pytest.fixture
def bench():
    made = Bench(0, 1, 2)
    for number in range(3):
        made.prove(number, OWNERS)
    return made


def store(bench, slot, value=1):
    return bench.tier.put(bench.tier.begin(KEY_OF[slot]), value)


def served(bench, slot):
    return bench.tier.get(KEY_OF[slot])


def test_a_view_is_read():
    view = view_of(nodes_text(0, {1: 0, 5: 1}, moving=[(1, 1)], failed=[1]).replace(b" 5\n", b" 5-7 9\n"))
    assert view.me == name(0) and view.moving == {name(1)} and not view.quorum
    assert view.owned == {name(0): ((1, 1),), name(1): ((5, 7), (9, 9))}
    assert view.places[name(1)] == Place("10.0.0.1", 7001, "host1")
    for noise in (b"", b"x", b"a b c d e f g h i\n", b"+" * 100):
        with pytest.raises(ValueError):
            view_of(noise)


def test_each_slot_is_under_the_lease_of_its_node(bench):
    assert bench.tier.stats().nodes == 3
    assert all(store(bench, slot) for slot in SLOTS)
    bench.node(0).lost(Lost("x"))
    assert [served(bench, slot) for slot in SLOTS] == [None, None, 1, 1]
    assert bench.tier.ready and bench.tier.begin(KEY_OF[SLOTS[0]]) is None


def test_each_lease_runs_out_by_itself(bench):
    assert all(store(bench, slot) for slot in SLOTS)
    bench.now += WINDOW - 0.1
    bench.prove(1, OWNERS)
    bench.now += 0.1
    assert [served(bench, slot) for slot in SLOTS] == [None, None, 1, None]


def test_a_slot_that_nobody_owns_is_not_kept():
    bench = Bench(0)
    assert bench.tier.begin(KEYS[0]) is None
    bench.prove(0, {SLOTS[0]: 0})
    assert store(bench, SLOTS[0]) and not store(bench, SLOTS[1])


def test_when_a_node_loses_a_slot_what_it_told_of_goes(bench):
    assert all(store(bench, slot) for slot in SLOTS)
    moved = OWNERS | {SLOTS[0]: 1}
    bench.prove(0, moved)
    assert [served(bench, slot) for slot in SLOTS] == [None, None, None, 1], "who has lost and who has gained are no longer agreed on"
    bench.prove(1, moved)
    assert bench.tier.begin(KEY_OF[SLOTS[2]]) is None, "a third still says otherwise"
    bench.prove(2, moved)
    assert all(store(bench, slot) for slot in SLOTS) and bench.tier.lease_of(KEY_OF[SLOTS[0]]) is bench.node(1).lease


def test_a_word_of_any_node_that_slots_have_moved_ends_the_lease(bench):
    """The owner may be cut off from the others, and not know yet."""
    assert store(bench, SLOTS[0]) and store(bench, SLOTS[3])
    bench.prove(1, OWNERS | {SLOTS[0]: 1, SLOTS[1]: 1})
    assert served(bench, SLOTS[0]) is None and served(bench, SLOTS[3]) == 1
    bench.prove(0, OWNERS)
    assert bench.tier.begin(KEY_OF[SLOTS[0]]) is None


def test_a_node_that_sees_no_majority_is_not_believed(bench):
    assert store(bench, SLOTS[0])
    bench.prove(0, OWNERS, failed=[1, 2])
    assert served(bench, SLOTS[0]) is None and bench.tier.begin(KEY_OF[SLOTS[0]]) is None
    bench.prove(0, OWNERS, failed=[1])
    assert store(bench, SLOTS[0])


def test_while_slots_are_handed_over_both_nodes_must_answer(bench):
    bench.prove(0, OWNERS, moving=[(SLOTS[0], 1)])
    assert store(bench, SLOTS[0])
    bench.now += 1.5
    bench.prove(0, OWNERS, moving=[(SLOTS[0], 1)])
    bench.now += 0.5
    assert served(bench, SLOTS[0]) is None, "who takes the slots has not answered for a window"
    bench.prove(1, OWNERS)
    assert store(bench, SLOTS[0])
    bench.node(1).lost(Lost("x"))
    assert served(bench, SLOTS[0]) is None and bench.tier.begin(KEY_OF[SLOTS[0]]) is None


def test_what_was_held_before_slots_are_handed_over_is_not_trusted_after(bench):
    assert store(bench, SLOTS[0])
    bench.prove(0, OWNERS, moving=[(SLOTS[0], 1)])
    assert served(bench, SLOTS[0]) is None


def test_nodes_that_are_named_are_listened_to_and_others_no_more(bench):
    after = {slot: 3 if owner == 0 else owner for slot, owner in OWNERS.items()}
    bench.node(0).lost(Lost("x"))
    assert bench.node(0).wanted(), "the others still name it"
    bench.prove(1, after)
    assert [node.address for node in bench.recruited[3:]] == [address(3)]
    bench.prove(2, after)
    assert not bench.node(0).wanted() and len(bench.recruited) == 4
    assert bench.node(3).wanted()
    bench.prove(3, after)
    assert bench.tier.stats().nodes == 3 and store(bench, SLOTS[0])


def test_a_node_known_under_two_addresses_is_listened_to_once():
    bench = Bench(0)
    bench.topology.nodes.address = lambda place, asked: (place.hostname, place.port)
    bench.prove(0, {SLOTS[0]: 0, SLOTS[1]: 1})
    first = bench.recruited[-1]
    assert first.address == ("host1", 7001)
    bench.topology._add(address(1))
    bench.prove(1, {SLOTS[0]: 0, SLOTS[1]: 1})
    first.lost(Lost("no such host"))
    assert not first.wanted() and bench.node(1).wanted()


def test_when_no_node_is_left_the_clients_are_tried():
    bench = Bench(0)
    bench.prove(0, {SLOTS[0]: 0})
    assert store(bench, SLOTS[0])
    bench.topology.nodes.numbers = [5]
    bench.node(0).lost(Lost("x"))
    assert bench.recruited[-1].address == address(5) and bench.tier.stats().currsize == 0


def test_an_answer_that_is_no_view_is_a_loss(bench):
    for noise in (b"", None, b"\xff", []):
        with pytest.raises(Lost, match="CLUSTER NODES"):
            bench.node(0).proved(bench.now, [noise])


def test_everything_invalid_on_one_node_is_that_nodes(bench):
    assert all(store(bench, slot) for slot in SLOTS)
    bench.node(0).flushed()
    assert [served(bench, slot) for slot in SLOTS] == [None, None, 1, 1] and store(bench, SLOTS[0])


class Oracle(RuleBasedStateMachine):
    """Three nodes, four slots with a key each, and spare nodes that take over from dead ones."""

    reads = Bundle("reads")
    tickets = Bundle("tickets")

    @initialize()
    def begin_all(self):
        self.bench = Bench(0, 1, 2)
        self.owner = dict(OWNERS)
        self.belief = {number: dict(OWNERS) for number in range(3)}
        self.moving = {}                    # slot -> who takes it; its key may be there by now
        self.gone = set()                   # slots whose key is with the taker
        self.version = dict.fromkeys(KEYS, 0)
        self.acknowledged = deque([(0.0, dict(self.version))])
        self.streams = {0: deque(), 1: deque(), 2: deque()}         # of the nodes that are listened to: what is on its way
        self.asked = {0: deque(), 1: deque(), 2: deque()}
        self.spare = 3
        for number in range(3):
            self.ask(number)
            self.answer(number)
            self.deliver(number)

    def executor(self, slot):
        return self.moving[slot] if slot in self.gone else self.owner[slot]

    # -- servers

    @rule(slot=st.sampled_from(SLOTS))
    def write(self, slot):
        key = KEY_OF[slot]
        self.version[key] += 1
        stream = self.streams.get(self.executor(slot))
        if stream is not None:
            stream.append(("invalid", key))
        self.acknowledged.append((self.bench.now, dict(self.version)))

    @rule(slot=st.sampled_from(SLOTS), to=st.integers(0, 2))
    def hand_over(self, slot, to):
        if slot not in self.moving and self.owner[slot] != to and to in self.belief and self.owner[slot] in self.belief:
            self.moving[slot] = to

    @rule(slot=st.sampled_from(SLOTS))
    def move_key(self, slot):
        """The source deletes its copy, and says so."""
        if slot in self.moving and slot not in self.gone:
            self.gone.add(slot)
            stream = self.streams.get(self.owner[slot])
            if stream is not None:
                stream.append(("invalid", KEY_OF[slot]))

    @rule(slot=st.sampled_from(SLOTS))
    def create_with_taker(self, slot):
        """A key that the source does not have comes to be with the taker: the source says nothing."""
        if slot in self.moving and slot not in self.gone:
            self.gone.add(slot)
            self.write(slot)

    @rule(slot=st.sampled_from(SLOTS))
    def settle_slot(self, slot):
        if slot in self.moving:
            source, taker = self.owner[slot], self.moving.pop(slot)
            self.gone.discard(slot)
            self.owner[slot] = taker
            for number in (source, taker):
                if number in self.belief:
                    self.belief[number][slot] = taker

    @rule(slot=st.sampled_from(SLOTS), to=st.integers(0, 2))
    def move_slot_at_once(self, slot, to):
        if slot not in self.moving and to in self.belief and self.owner[slot] in self.belief:
            self.moving[slot] = to
            self.settle_slot(slot)

    @rule(number=st.integers(0, 9))
    def gossip(self, number):
        if number in self.belief:
            self.belief[number] = dict(self.owner)

    @precondition(lambda self: self.spare < 6 and not self.moving)
    @rule(number=st.integers(0, 2))
    def fail_over(self, number):
        """A node dies; its replica has its slots from now on. That the connection is dead, nobody has noticed yet."""
        if number in self.belief:
            del self.belief[number]
            self.asked.get(number, deque()).clear()
            self.owner = {slot: self.spare if owner == number else owner for slot, owner in self.owner.items()}
            self.belief[self.spare] = dict(self.owner)
            self.spare += 1

    # -- the connections

    @rule(number=st.integers(0, 5))
    def ask(self, number):
        if number in self.asked:
            self.asked[number].append(self.bench.now)

    @rule(number=st.integers(0, 5))
    def answer(self, number):
        if self.asked.get(number) and number in self.belief:
            moving = [(slot, taker) for slot, taker in self.moving.items() if self.owner[slot] == number]
            self.streams[number].append((self.asked[number].popleft(), nodes_text(number, self.belief[number], moving)))

    @rule(number=st.integers(0, 5))
    def deliver(self, number):
        if not self.streams.get(number):
            return
        when, what = self.streams[number].popleft()
        if when == "invalid":
            self.bench.tier.invalidate([what])
        else:
            self.bench.node(number).proved(when, [what])

    @rule(number=st.integers(0, 5))
    def talk(self, number):
        """All of it, without delay."""
        self.ask(number)
        while self.asked.get(number) and number in self.belief:
            self.answer(number)
        while self.streams.get(number):
            self.deliver(number)

    @rule(number=st.integers(0, 5))
    def lose(self, number):
        if number in self.streams:
            del self.streams[number], self.asked[number]
            self.bench.node(number).lost(Lost("reset"))

    @rule(number=st.integers(0, 5))
    def connect(self, number):
        wanted = [node.address for node in self.bench.topology.members.values()]
        if number in self.belief and number not in self.streams and address(number) in wanted and self.bench.node(number).wanted():
            self.streams[number], self.asked[number] = deque(), deque()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.9, 2.0]))
    def time_passes(self, seconds):
        self.bench.now += seconds

    # -- readers

    @rule(target=tickets, slot=st.sampled_from(SLOTS))
    def begin(self, slot):
        return slot, self.bench.tier.begin(KEY_OF[slot])

    @rule(target=reads, ticket=consumes(tickets))
    def read(self, ticket):
        return (*ticket, self.version[KEY_OF[ticket[0]]])

    @rule(read=consumes(reads))
    def put(self, read):
        self.bench.tier.put(read[1], read[2])

    @rule(slot=st.sampled_from(SLOTS))
    def read_at_once(self, slot):
        store(self.bench, slot, self.version[KEY_OF[slot]])

    @invariant()
    def served_values_are_young(self):
        if not hasattr(self, "acknowledged"):
            return
        now = self.bench.now
        while len(self.acknowledged) > 1 and self.acknowledged[1][0] <= now - WINDOW:
            self.acknowledged.popleft()
        then = self.acknowledged[0][1] if self.acknowledged[0][0] <= now - WINDOW else dict.fromkeys(KEYS, 0)
        for key in KEYS:
            version = self.bench.tier.get(key)
            assert version is None or version >= then[key], f"{key!r}: version {version} served, {then[key]} is a window old"


TestOracle = Oracle.TestCase
TestOracle.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)

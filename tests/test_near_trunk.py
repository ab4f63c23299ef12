"""One connection for many tiers: whoever joins late is served nothing that the server was not asked to tell of."""
import gc
import math
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from test_near_topology import KEY_OF, OWNERS, SLOTS, Client, address, nodes_text
from test_near_watch import ALL, HEARTBEAT, KEYS, WINDOW, Bench, Oracle, hello, invalid

from adaptcache.near import NearCache
from adaptcache.near.tier import OVER, Lease
from adaptcache.near.topology import Topology
from adaptcache.near.trunk import Trunk
from adaptcache.near.watch import Lost, Receive


def route(key):
    """Keys are known by their first byte; t's concern everybody."""
    return None if key.startswith(b"t") else key[:1]


class Wood(Bench):
    """A trunk with a branch for what begins with an a."""

    def made(self, options):
        self.options = options
        trunk = Trunk(options, (b"a",), route, clock=lambda: self.now)
        self.branches = {b"a": trunk.branch(options, (b"a",), b"a")}
        return trunk

    def join(self, place, *more):
        made = self.branches[place] = self.tier.branch(self.options, (place, *more), place)
        return made


class Joining(Oracle):
    """The oracle of the watch, whose keys are in branches of their own. These join when they like, and come again."""

    bench_of = Wood

    @initialize(answers=st.booleans())
    def begin_well(self, answers):
        while answers and self.bench.questions():
            self.answer()
        if answers:
            self.deliver(len(self.stream))

    def tier(self, key):
        return self.bench.branches.get(key) or self.bench.branches[b"a"]

    @precondition(lambda self: len(self.bench.branches) < len(KEYS))
    @rule(data=st.data(), then=st.lists(st.sampled_from(["read_at_once", "write", "beats"]), max_size=6))
    def join(self, data, then):
        key = data.draw(st.sampled_from([key for key in KEYS if key not in self.bench.branches]))
        self.bench.join(key)
        for what in then:
            if what == "beats":
                self.all_is_well_for_a_while(4)
            else:
                getattr(self, what)(key)
            self.served_values_are_young()

    @precondition(lambda self: len(self.bench.branches) > 1)
    @rule(data=st.data())
    def leave(self, data):
        self.bench.branches.pop(data.draw(st.sampled_from([key for key in self.bench.branches if key != b"a"]))).leave()


    @rule(beats=st.integers(1, 8))
    def all_is_well_for_a_while(self, beats):
        for _ in range(beats):
            if self.stream and isinstance(self.bench.waiting, Receive):
                self.deliver(len(self.stream))
            if self.stream or not isinstance(self.bench.waiting, Receive):
                return None
            before = self.bench.connections, self.bench.hung
            self.bench.wake()
            if (self.bench.connections, self.bench.hung) != before:
                return self.fresh()
            while self.bench.questions():
                self.answer()
            self.deliver(len(self.stream))


TestJoining = Joining.TestCase
TestJoining.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def store(tier, key, value=1):
    return tier.put(tier.begin(key), value)


def test_prefixes_of_who_joins_are_told_with_the_next_question_and_its_entries_begin_with_the_answer():
    wood = Wood()
    assert wood.questions()[0] == [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"a"]
    wood.ready()
    late = wood.join(b"b", b"t")
    assert store(wood.branches[b"a"], b"a1") and not late.ready and late.begin(b"b1") is None
    wood.wake()
    assert wood.questions()[0] == [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"b", b"PREFIX", b"t"]
    assert late.begin(b"b1") is None
    wood.deliver(b"+OK\r\n")
    assert store(late, b"b1") and late.ready and wood.branches[b"a"].get(b"a1") == 1
    wood.deliver(hello())
    wood.sent.clear()
    wood.wake()
    assert wood.questions() == [[b"HELLO"], [b"PING"]]


def test_an_answer_to_a_question_without_the_newest_prefix_proves_nothing():
    wood = Wood()
    wood.ready()
    before = wood.keeper.lease.until
    wood.wake()
    wood.join(b"b")
    wood.deliver(hello())
    assert wood.keeper.lease.until == before
    wood.wake()
    wood.deliver(b"+OK\r\n" + hello())
    assert wood.keeper.lease.until == 1000.0 + 2 * HEARTBEAT + WINDOW


def test_a_new_connection_is_told_all_prefixes_at_once():
    wood = Wood()
    wood.ready()
    late = wood.join(b"b")
    wood.lose()
    assert late.begin(b"b") is None
    wood.wake()
    assert wood.questions()[0] == [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"a", b"PREFIX", b"b"]
    wood.ready()
    assert store(late, b"b")


def test_each_branch_hears_of_its_own_and_all_of_what_concerns_all():
    wood = Wood()
    other, twin = wood.join(b"b", b"t"), wood.tier.branch(wood.options, (b"b", b"t"), b"b")
    branches = (wood.branches[b"a"], other, twin)
    wood.ready() if wood.questions()[0][5:] == [b"a", b"PREFIX", b"b", b"PREFIX", b"t"] else (wood.lose(), wood.wake(), wood.ready())
    for branch, key in zip(branches, (b"a1", b"b1", b"b1"), strict=True):
        assert store(branch, key) and (branch is branches[0] or store(branch, b"t1"))
    wood.deliver(invalid(b"b1", b"z"))
    assert [branch.get(key) for branch, key in zip(branches, (b"a1", b"b1", b"b1"), strict=True)] == [1, None, None]
    assert [branch.get(b"t1") for branch in branches[1:]] == [1, 1]
    wood.deliver(invalid(b"t1"))
    assert [branch.get(b"t1") for branch in branches[1:]] == [None, None] and branches[0].get(b"a1") == 1
    assert (wood.tier.stats().invalidations, branches[0].stats().invalidations) == (3, 1)
    assert store(other, b"b1")
    wood.deliver(ALL)
    assert branches[0].get(b"a1") is None and other.get(b"b1") is None and other.ready and other.stats().flushes == 1


def test_room_and_counters_are_each_branchs_own():
    wood = Wood()
    wood.ready()
    for at in range(200):
        store(wood.branches[b"a"], b"a%d" % at)
    assert wood.branches[b"a"].stats().currsize == 100 and wood.tier.stats().currsize == 0
    stats = wood.branches[b"a"].stats()
    assert (stats.stores, stats.evictions, stats.connects, stats.nodes) == (200, 100, 1, 1)
    wood.lose()
    assert wood.branches[b"a"].stats().losses == 1 and wood.branches[b"a"].stats().error == "reset"
    assert wood.branches[b"a"].stats().currsize == 0


def test_who_has_left_takes_and_gives_nothing():
    wood = Wood()
    wood.ready()
    branch = wood.branches[b"a"]
    assert store(branch, b"a1")
    ticket = branch.begin(b"a2")
    branch.leave()
    assert branch.get(b"a1") is None and branch.begin(b"a3") is None and not branch.put(ticket, 1) and not branch.ready
    again = wood.join(b"a")
    assert store(again, b"a1")
    wood.deliver(invalid(b"a1"))
    assert again.get(b"a1") is None


def test_a_branch_that_nobody_holds_is_collected():
    wood = Wood()
    wood.ready()
    gone = weakref.ref(wood.branches.pop(b"a"))
    gc.collect()
    assert gone() is None
    wood.deliver(invalid(b"a1"))
    wood.join(b"b")
    assert list(wood.tier._branches) == [b"b"]


def test_after_a_fork_branches_are_empty_and_begin_with_the_trunk():
    wood = Wood()
    wood.ready()
    branch = wood.branches[b"a"]
    assert store(branch, b"a1")
    wood.tier.reset()
    assert branch.get(b"a1") is None and branch.begin(b"a1") is None
    lease = Lease(math.inf)
    wood.tier.lease_of, wood.tier.leases, wood.tier.covers = (lambda key: lease), (lambda: (lease,)), (lambda: 1)
    assert store(branch, b"a1")


@pytest.mark.parametrize("last", [0, 1, 2])
def test_in_a_cluster_every_node_must_tell_of_it(last):
    now = [1000.0]
    options = NearCache(100, heartbeat=HEARTBEAT, window=WINDOW)
    trunk = Trunk(options, (b"a",), lambda key: b"", clock=lambda: now[0])
    branch = trunk.branch(options, (b"a",), b"")
    branch.prefixes = ()        # the keys of the bench have none
    nodes = []
    topology = Topology(trunk, Client([0, 1, 2]), nodes.append)
    topology.start()
    for number, node in sorted(enumerate(nodes), key=lambda each: (each[0] == last, each[0])):
        assert node.address == address(number)
        node.covers = 1
        node.proved(now[0], [nodes_text(number, OWNERS)])
    assert all(store(branch, KEY_OF[slot]) for slot in SLOTS)
    late = trunk.branch(options, (b"b",), b"")
    late.prefixes = ()
    for _, node in sorted(enumerate(nodes), key=lambda each: (each[0] == last, each[0])):
        assert late.begin(KEY_OF[SLOTS[0]]) is None
        node.covers = 2
    assert all(store(late, KEY_OF[slot]) for slot in SLOTS)
    nodes[last].covers = 0
    assert late.begin(KEY_OF[SLOTS[0]]) is None
    nodes[last].lost(Lost("gone"))          # its slots have no lease; the others are not held up by it
    assert nodes[last].lease.until == OVER
    assert any(late.begin(KEY_OF[slot]) is not None for slot in SLOTS) and any(late.begin(KEY_OF[slot]) is None for slot in SLOTS)

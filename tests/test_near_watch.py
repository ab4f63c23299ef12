"""The lease against an oracle: a server with versions whose pushes, answers and connections come late, in pieces, or never.

Everything that the network and the scheduler can do is a step of a state machine: the watch is a generator without a
socket, so a half-open connection, a stopped server and a stalled thread are steps that are not taken. After every step: no value is served
that a write acknowledged more than a window ago has replaced, and none older than an invalidation that was received.
"""
import re
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from adaptcache.near import NearCache
from adaptcache.near.resp import Push, Reader
from adaptcache.near.tier import OVER, Tier
from adaptcache.near.watch import Dial, Hang, Lost, Pause, Receive, Send, Single, watch

WINDOW, HEARTBEAT = 2.0, 0.5
KEYS = [b"a", b"b", b"c"]


def hello(role=b"master", proto=3):
    """The answer to a question."""
    return b"%%3\r\n+server\r\n+redis\r\n+proto\r\n:%d\r\n+role\r\n+%s\r\n+PONG\r\n" % (proto, role)


def invalid(*keys):
    return b">2\r\n+invalidate\r\n*%d\r\n" % len(keys) + b"".join(b"$%d\r\n%s\r\n" % (len(key), key) for key in keys)


ALL = b">2\r\n+invalidate\r\n_\r\n"


class Bench:
    """A tier, its watch, and a clock that moves by hand. The driver stops where the watch waits."""

    def __init__(self, **options):
        self.now = 1000.0
        self.tier = self.made(NearCache(100, heartbeat=HEARTBEAT, window=WINDOW, **options))
        self.address = "here"
        self.keeper = Single(self.tier, lambda: self.address)
        self.slept = 5.0
        self.watch = watch(self.keeper, self.tier, lambda: self.slept)
        self.sent = bytearray()             # by the watch, not taken by the server yet
        self.connections = 0
        self.up = True
        self.hung = True                    # no connection
        self.waiting = None
        self.sending = 0.0                  # seconds that a question takes to leave
        self.run(lambda: next(self.watch))

    def made(self, options):
        return Tier(options, clock=lambda: self.now)

    def run(self, step):
        """Do what the watch wants, up to where it waits."""
        command = step()
        while not isinstance(command, (Receive, Pause)):
            match command:
                case Dial() if self.up:
                    self.connections += 1
                    self.hung = False
                    self.sent.clear()
                    command = self.watch.send(self.address)
                case Dial():
                    command = self.watch.throw(Lost("refused"))
                case Send(data):
                    self.sent += data
                    self.now += self.sending
                    command = self.watch.send(None)
                case Hang():
                    self.hung = True
                    command = self.watch.send(None)
        self.waiting = command
        self.since = self.now

    def deliver(self, data):
        assert isinstance(self.waiting, Receive)
        self.run(lambda: self.watch.send(data))

    def lose(self):
        self.run(lambda: self.watch.throw(Lost("reset")))

    def wake(self):
        """The time that the watch waits for has come, and nothing else has."""
        left = self.since + (self.waiting.within if isinstance(self.waiting, Receive) else self.waiting.seconds) - self.now
        self.now += max(0.0, left)
        self.run(lambda: self.watch.send(None))

    def questions(self):
        """The commands that wait for the server."""
        reader = Reader()
        reader.feed(bytes(self.sent))
        return list(reader)

    def ready(self):
        """Connected and answered."""
        self.deliver(b"+OK\r\n" + hello())
        self.sent.clear()
        assert self.tier.ready


class Oracle(RuleBasedStateMachine):
    """The server, the network, readers and writers."""

    tickets = Bundle("tickets")
    reads = Bundle("reads")

    bench_of = Bench

    def __init__(self):
        super().__init__()
        self.bench = self.bench_of()
        self.now = {key: 0 for key in KEYS}         # the version on the server
        self.acknowledged = deque([(0.0, dict(self.now))])      # when, and what was true then
        self.told = {key: 0 for key in KEYS}        # versions whose invalidation was received
        self.fresh()

    def fresh(self):
        self.stream = deque()           # (bytes, what they tell) that the server has written and nobody has read
        self.tracking = ()              # the beginnings of keys that the server tells of

    # -- the server

    @rule(key=st.sampled_from(KEYS))
    def write(self, key):
        self.now[key] += 1
        if key.startswith(self.tracking):
            self.stream.append((invalid(key), {key: self.now[key]}))
        self.acknowledged.append((self.bench.now, dict(self.now)))

    @rule()
    def flush(self):
        for key in KEYS:
            self.now[key] += 1
        if self.tracking:
            self.stream.append((ALL, dict(self.now)))
        self.acknowledged.append((self.bench.now, dict(self.now)))

    @precondition(lambda self: not self.bench.hung and self.bench.questions())
    @rule()
    def answer(self):
        """The server takes one command off the connection."""
        questions = self.bench.questions()
        first = questions[0]
        self.bench.sent[:] = b"".join(packed(each) for each in questions[1:])
        if first[:2] == [b"CLIENT", b"TRACKING"]:
            self.tracking += tuple(first[5::2]) or (b"",)
            self.stream.append((b"+OK\r\n", {}))
        elif first == [b"HELLO"]:
            self.stream.append((hello().removesuffix(b"+PONG\r\n"), {}))
        else:
            assert first == [b"PING"]
            self.stream.append((b"+PONG\r\n", {}))

    # -- the network

    @precondition(lambda self: self.stream and isinstance(self.bench.waiting, Receive))
    @rule(count=st.integers(1, 5))
    def deliver(self, count):
        parts = [self.stream.popleft() for _ in range(min(count, len(self.stream)))]
        self.bench.deliver(b"".join(data for data, _ in parts))
        for _, what in parts:
            self.told.update(what)

    @precondition(lambda self: self.stream and len(self.stream[0][0]) > 1 and isinstance(self.bench.waiting, Receive))
    @rule(data=st.data())
    def deliver_a_part(self, data):
        whole, what = self.stream.popleft()
        cut = data.draw(st.integers(1, len(whole) - 1))
        self.stream.appendleft((whole[cut:], what))
        self.bench.deliver(whole[:cut])

    @rule(up=st.booleans())
    def lose(self, up):
        if isinstance(self.bench.waiting, Receive):
            self.bench.up = up
            self.fresh()
            self.bench.lose()

    @rule(up=st.booleans())
    def server_comes_and_goes(self, up):
        self.bench.up = up

    # -- time

    @rule(seconds=st.sampled_from([0.01, 0.3, 0.5, 1.0, 1.99, 2.0, 5.0]))
    def time_passes(self, seconds):
        """And nobody looks: the thread is stalled, or the process stopped."""
        self.bench.now += seconds

    @precondition(lambda self: not self.stream or isinstance(self.bench.waiting, Pause))
    @rule()
    def wake(self):
        before = self.bench.connections, self.bench.hung
        self.bench.wake()
        if (self.bench.connections, self.bench.hung) != before:
            self.fresh()

    @precondition(lambda self: isinstance(self.bench.waiting, Receive))
    @rule()
    def wake_with_what_waits_on_the_wire(self):
        """The server is stopped, or the wire is cut: what it has written does not come."""
        before = self.bench.connections, self.bench.hung
        self.bench.wake()
        if (self.bench.connections, self.bench.hung) != before:
            self.fresh()

    # -- readers

    def tier(self, key):
        return self.bench.tier

    @rule(target=tickets, key=st.sampled_from(KEYS))
    def begin(self, key):
        return key, self.tier(key).begin(key)

    @rule(target=reads, ticket=consumes(tickets))
    def read(self, ticket):
        return (*ticket, self.now[ticket[0]])

    @rule(read=consumes(reads))
    def put(self, read):
        key, ticket, version = read
        self.tier(key).put(ticket, version)

    @rule(key=st.sampled_from(KEYS))
    def read_at_once(self, key):
        self.tier(key).put(self.tier(key).begin(key), self.now[key])

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key):
        self.tier(key).forget(key)
        assert self.tier(key).get(key) is None

    @rule()
    def clear(self):
        self.bench.tier.clear()

    @invariant()
    def served_values_are_young(self):
        now = self.bench.now
        while len(self.acknowledged) > 1 and self.acknowledged[1][0] <= now - WINDOW:
            self.acknowledged.popleft()
        then = self.acknowledged[0][1] if self.acknowledged[0][0] <= now - WINDOW else dict.fromkeys(KEYS, 0)
        for key in KEYS:
            version = self.tier(key).get(key)
            if version is not None:
                assert version >= then[key], f"{key!r}: version {version} served, {then[key]} was acknowledged a window ago"
                assert version >= self.told[key], f"{key!r}: version {version} served, {self.told[key]} was received"
            for other in KEYS:
                if self.tier(other) is self.tier(key):
                    beside = self.tier(key).get(other)
                    both = None if version is None or beside is None else (version, beside)
                    assert self.tier(key).both(key, other) == both


def packed(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


TestOracle = Oracle.TestCase
TestOracle.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_new_connection_asks_for_tracking_and_is_ready_when_answered():
    bench = Bench()
    assert bench.questions() == [[b"CLIENT", b"TRACKING", b"ON", b"BCAST"], [b"HELLO"], [b"PING"]]
    bench.deliver(b"+OK\r\n")
    assert not bench.tier.ready
    bench.deliver(hello())
    assert bench.tier.ready and bench.tier.stats().connects == 1


def test_prefixes_are_told_to_the_server():
    bench = Bench()
    bench.tier.prefixes = (b"a:", b"b:")
    bench.lose()
    bench.wake()
    assert bench.questions()[0] == [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"a:", b"PREFIX", b"b:"]


def test_the_lease_counts_from_the_question_not_from_the_answer():
    bench = Bench()
    bench.now += 1.5
    bench.ready()
    assert bench.keeper.lease.until == 1000.0 + WINDOW


def test_the_lease_counts_from_before_the_question_was_sent():
    bench = Bench()
    bench.ready()
    bench.sending = 0.4
    bench.wake()
    bench.deliver(hello())
    assert bench.keeper.lease.until == 1000.0 + HEARTBEAT + WINDOW


def test_an_answer_that_comes_after_its_own_window_gives_nothing():
    bench = Bench()
    bench.now += WINDOW + 0.1
    bench.deliver(b"+OK\r\n" + hello())
    assert not bench.tier.ready and bench.tier.begin(b"a") is None


def test_a_question_is_asked_each_heartbeat_and_answers_move_the_lease_on():
    bench = Bench()
    bench.ready()
    ticket = bench.tier.begin(b"a")
    assert bench.tier.put(ticket, 1)
    for beat in range(1, 20):
        bench.wake()
        assert bench.questions() == [[b"HELLO"], [b"PING"]] and bench.now == pytest.approx(1000.0 + beat * HEARTBEAT)
        bench.sent.clear()
        bench.deliver(hello())
        assert bench.tier.get(b"a") == 1


def test_a_server_that_does_not_answer_is_left_after_a_window_and_the_tier_is_empty():
    bench = Bench()
    bench.ready()
    bench.tier.put(bench.tier.begin(b"a"), 1)
    while not bench.hung:
        bench.wake()
        # The first question that nobody answers is asked one heartbeat after the answer, and is waited for a window.
        assert bench.now <= 1000.0 + HEARTBEAT + WINDOW + 0.01
    assert bench.tier.get(b"a") is None and bench.tier.stats().currsize == 0
    assert "no answer" in bench.tier.stats().error and bench.tier.stats().losses == 1


def test_answers_that_wait_after_a_long_stop_are_read_before_the_connection_is_judged():
    bench = Bench()
    bench.ready()
    bench.wake()
    bench.now += 100.0                      # the process was stopped
    bench.run(lambda: bench.watch.send(None))       # the time is over: look once more
    assert not bench.hung
    bench.deliver(invalid(b"a") + hello())
    assert not bench.hung and not bench.tier.ready
    bench.deliver(hello())
    assert bench.tier.ready and bench.connections == 1


def test_what_was_held_when_the_time_ran_out_is_not_taken_up_again():
    bench = Bench()
    bench.ready()
    bench.tier.put(bench.tier.begin(b"a"), 1)
    bench.wake()
    bench.now = bench.keeper.lease.until
    bench.deliver(hello())
    assert bench.tier.ready and bench.tier.get(b"a") is None and bench.tier.stats().connects == 2


def test_a_ticket_from_before_a_loss_is_refused_after_it():
    bench = Bench()
    bench.ready()
    ticket = bench.tier.begin(b"a")
    bench.lose()
    assert not bench.tier.ready and bench.tier.begin(b"a") is None
    bench.wake()
    bench.ready()
    assert bench.connections == 2 and not bench.tier.put(ticket, 1)


def test_everything_invalid_empties_the_tier_and_listening_goes_on():
    bench = Bench()
    bench.ready()
    bench.tier.put(bench.tier.begin(b"a"), 1)
    ticket = bench.tier.begin(b"b")
    bench.deliver(ALL)
    assert bench.tier.get(b"a") is None and not bench.tier.put(ticket, 1)
    assert bench.tier.ready and bench.tier.stats().flushes == 1
    assert bench.tier.put(bench.tier.begin(b"b"), 1)


@pytest.mark.parametrize("answer, said", [
    (b"-NOPERM User x has no permissions\r\n", "CLIENT TRACKING was refused.*NOPERM"),
    (b"+OK\r\n-ERR unknown command\r\n+PONG\r\n", "HELLO was refused"),
    (b"+OK\r\n" + hello().replace(b"+PONG", b"-NOPERM no"), "PING was refused"),
    (b"+OK\r\n" + hello(proto=2), "does not speak RESP3"),
    (b"+OK\r\n+PONG\r\n+PONG\r\n", "does not speak RESP3"),
    (b"HTTP/1.1 400\r\n", "not RESP3"),
    (b"+OK\r\n" + hello() * 2, "an answer without a question"),
])
def test_who_cannot_do_it_is_not_trusted(answer, said, caplog):
    bench = Bench()
    bench.deliver(answer)
    assert bench.hung and not bench.tier.ready
    assert re.search(said, bench.tier.stats().error)


def test_a_refusal_is_logged_once_and_asked_again_at_longer_and_longer_intervals(caplog):
    bench = Bench()
    pauses = []
    for _ in range(14):
        bench.deliver(b"-NOPERM no\r\n")
        pauses.append(bench.waiting.seconds)
        bench.wake()
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "NOPERM" in caplog.text
    assert pauses[0] <= 0.05 and 15.0 <= pauses[-1] <= 30.0
    bench.ready()


def test_a_server_that_is_away_is_dialled_again_after_pauses_that_differ():
    bench = Bench()
    bench.up = False
    bench.lose()
    pauses = []
    for _ in range(12):
        pauses.append(bench.waiting.seconds)
        bench.wake()
    assert len(set(pauses)) == 12 and pauses[0] <= 0.05 and 2.5 <= pauses[-1] <= 5.0
    bench.up = True
    bench.wake()
    bench.ready()


@pytest.mark.parametrize("change", ["role", "address"])
def test_another_server_is_another_epoch(change):
    bench = Bench()
    bench.ready()
    bench.tier.put(bench.tier.begin(b"a"), 1)
    bench.wake()
    if change == "address":
        bench.address = "there"
        bench.deliver(hello())
    else:
        bench.deliver(hello(b"replica"))
    assert bench.hung and not bench.tier.ready and bench.tier.get(b"a") is None
    bench.wake()
    bench.ready()


def test_a_machine_that_was_suspended_starts_anew():
    bench = Bench()
    bench.ready()
    for slept in (5.9, 4.0, 6.5):           # short naps, and a clock that was read late
        bench.slept = slept
        bench.wake()
        bench.sent.clear()
        bench.deliver(hello())
    assert bench.tier.ready and bench.tier.stats().losses == 0
    bench.slept += 3600.0                   # and not a second by the other clock
    bench.wake()
    assert bench.hung and not bench.tier.ready and "suspended" in bench.tier.stats().error


def test_other_pushes_are_not_our_business():
    bench = Bench()
    bench.ready()
    bench.deliver(b">3\r\n+message\r\n+a\r\n+b\r\n" + b">0\r\n")
    assert bench.tier.ready


@pytest.mark.parametrize("answer", [b"-BUSY Redis is busy running a script.", b"-LOADING Redis is loading the dataset in memory"])
def test_a_server_without_time_for_a_ping_proves_nothing(answer):
    bench = Bench()
    bench.ready()
    bench.wake()
    bench.deliver(hello().replace(b"+PONG", answer))
    assert bench.keeper.lease.until == 1000.0 + WINDOW and not bench.hung
    bench.wake()
    bench.deliver(hello())
    assert bench.keeper.lease.until == 1000.0 + 2 * HEARTBEAT + WINDOW


def test_closing_ends_the_lease():
    bench = Bench()
    bench.ready()
    lease = bench.keeper.lease
    bench.watch.close()
    assert lease.until == OVER and not bench.tier.ready


def test_messages_have_a_kind_of_their_own():
    assert isinstance(Push([b"invalidate"]), list)

"""A fleet on a real server: what workers tell is learned from by one of them and known by all; what is damaged, foreign or old is refused."""
from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import redis
from fleets import SALT, SPEC, Clock, Shared, requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Cluster, Sentinels, Server, Wire, until

from adaptcache import Learned, StateError, state
from adaptcache.fleet import Fleet, models
from adaptcache.fleet.alone import Alone
from adaptcache.fleet.batches import Event, pack
from adaptcache.fleet.configuration import Configuration
from adaptcache.fleet.election import Office
from adaptcache.fleet.models import About
from adaptcache.fleet.names import NUMBERS, Names
from adaptcache.fleet.pupil import Pupil
from adaptcache.fleet.server import Server as Link
from adaptcache.fleet.server import ServerTime, client_of
from adaptcache.ledger import PUT, Ledger

NAME = "test"
NAMES = Names(NAME)
RULES = Configuration.of(Ledger(SPEC, salt=SALT)).rules
ABOUT = About(fence=3, version=2, made=1.7e9, events=100, position="5-0", index=7, read="6-0", upto=50.0, rules=RULES)


class Worker:
    """A ledger in event time and its part in a fleet, both moved by hand."""

    def __init__(self, client: Any, *, spec: Learned = SPEC, salt: bytes = SALT, **options: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.clock = Clock()
        self.ledger = Ledger(spec, salt=salt, timer=self.clock)
        self.fleet = Fleet(client, NAME, self.ledger, on_event=lambda what, details: self.events.append((what, dict(details))),
                           **{"publish": 0.1, "rate": 1e6, **options})
        learner = self.fleet._learner
        if learner is not None:
            learner._hold, learner._share, learner.rest = 0.0, 1.0, 0.0

    def heard(self, what: str) -> list[dict[str, Any]]:
        return [details for said, details in self.events if said == what]

    def serve(self, shared: Shared, rows: Any) -> None:
        for at, (now, key) in enumerate(rows):
            self.clock.now = now
            shared.ask(self.ledger, key, now)
            if at % 500 == 499:
                self.ledger.step()
                self.fleet.step()
        self.fleet.step()

    def learn(self, until_: Callable[[], Any], steps: int = 2000) -> None:
        """Be the fleet's learner until something has come true."""
        assert self.fleet._learner is not None
        for _ in range(steps):
            self.fleet._learner.step()
            if until_():
                return
            time.sleep(0.001)
        raise AssertionError(f"not within {steps} steps; it heard {self.events[-3:]}")

    def cells(self) -> Any:
        learned = self.ledger.cache._knowledge()
        assert learned is not None
        return learned.arrays["everyone"]["n"].copy()


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Callable[..., Worker]]:
    """worker(client, **options): closed after the test."""
    with ExitStack() as stack:
        def make(client: Any, **options: Any) -> Worker:
            made = Worker(client.url if isinstance(client, (Server, Cluster)) else client, **options)
            stack.callback(made.fleet.close)
            return made

        yield make


@pytest.fixture(scope="module")
def body() -> bytes:
    """A model that a pupil made."""
    pupil, shared = Pupil(SPEC), Shared()
    clock = Clock()
    ledger = Ledger(SPEC, salt=SALT, timer=clock)
    from adaptcache.fleet.tap import Tap
    tap = ledger.listener = Tap()
    for clock.now, key in requests(1200):
        shared.ask(ledger, key, clock.now)
    pupil.tell(sorted(tap.take(), key=lambda event: event.at))
    return models.dumps(pupil.knows(), ABOUT)


def offer(server: Server, body: bytes, *, fence: Any = ABOUT.fence, version: Any = ABOUT.version) -> None:
    with server.client() as client:
        client.hset(NAMES.model, mapping={"fence": fence, "version": version, "body": body})


# -- learning together

def test_a_fleet_learns_together_and_each_knows_what_the_others_saw(server: Server, worker: Callable[..., Worker]) -> None:
    first, second = worker(server), worker(server, learn=False)
    shared = Shared()
    rows = list(requests(1500))
    first.serve(shared, rows[::2])
    second.serve(shared, rows[1::2])
    sent = first.fleet.stats().sent + second.fleet.stats().sent
    first.learn(lambda: first.heard("model_published") and first.heard("model_published")[-1]["events"] >= sent)
    second.fleet.step()
    told = second.heard("model_installed")
    assert told and told[-1]["fence"] == 1 and second.fleet.stats().model_events == told[-1]["events"] > 1400
    assert told[-1]["events"] == sent
    assert second.fleet.stats().dropped == 0 == second.fleet.stats().refused
    # It knows keys that it never saw itself.
    stranger = worker(server, learn=False)
    stranger.fleet.step()
    known = stranger.ledger.cache._knowledge()
    assert known is not None
    assert known.keys["count"][known.keys["hash"] == stranger.ledger.number(b"often 7")][0] > 3


def test_a_fleet_in_a_cluster_keeps_its_keys_on_one_node(cluster: Cluster, worker: Callable[..., Worker]) -> None:
    with cluster.client() as client:
        one, other = worker(client), worker(client, learn=False)
        one.serve(Shared(), requests(800))
        one.learn(lambda: one.heard("model_published"))
        other.fleet.step()
        assert other.heard("model_installed") and other.fleet.stats().workers == 2
        assert len({client.keyslot(key) for key in client.keys("adaptcache:fleet:*", target_nodes="primaries")}) == 1


@pytest.mark.parametrize("options", [{"protocol": 2}, {"protocol": 3}, {"decode_responses": True}, {"db": 3}])
def test_any_client_of_redis_py_will_do(valkey: Server, worker: Callable[..., Worker], options: dict[str, Any]) -> None:
    with valkey.client(**options) as client:
        one = worker(client)
        one.serve(Shared(), requests(800))
        one.learn(lambda: one.heard("model_published"))
        one.fleet.step()
        assert one.heard("model_installed")
        assert client.exists(NAMES.model)


def test_an_asyncio_client_lends_its_address(valkey: Server) -> None:
    import redis.asyncio

    given = redis.asyncio.Redis(host="127.0.0.1", port=valkey.port, db=2)
    with client_of(given) as client:
        client.set("a", 1)
        assert client.connection_pool.connection_kwargs["db"] == 2
    with client_of(redis.asyncio.Redis.from_url(valkey.url)) as client:
        assert client.ping()


@pytest.mark.slow
def test_a_fleet_behind_sentinels_finds_the_primary(sentinels: Sentinels, worker: Callable[..., Worker]) -> None:
    import redis.asyncio.sentinel

    one = worker(sentinels.sentinel().master_for(sentinels.NAME))
    one.serve(Shared(), requests(800))
    one.learn(lambda: one.heard("model_published"))
    with sentinels.primary().client() as client:
        assert client.exists(NAMES.model)
    given = redis.asyncio.sentinel.Sentinel([("127.0.0.1", 1)]).master_for("x")
    with pytest.raises(TypeError, match="cannot be used from a thread"):
        client_of(given)


def test_a_drop_in_client_is_not_used_for_the_fleets_own_keys(valkey: Server) -> None:
    class DropIn(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            raise AssertionError("the application's")

    with DropIn(host="127.0.0.1", port=valkey.port) as given, client_of(given) as client:
        assert type(client) is redis.Redis and client.ping()


def test_arguments_are_refused_before_anything_is_touched(valkey: Server) -> None:
    ledger = Ledger(SPEC, salt=SALT)
    for options, error, said in (
            ({"name": "a b"}, ValueError, "name: "), ({"ledger": object()}, TypeError, "ledger: "), ({"client": 5}, TypeError, "client: "),
            ({"rate": 0}, ValueError, "rate: "), ({"interval": "x"}, TypeError, "interval: "), ({"lock_time": -1}, ValueError, "lock_time: "),
            ({"publish": float("nan")}, ValueError, "publish: "), ({"near": 3}, TypeError, "near: "), ({"on_event": 3}, TypeError, "on_event: ")):
        given = {"client": valkey.url, "name": NAME, "ledger": ledger, **options}
        with pytest.raises(error, match=said):
            Fleet(given.pop("client"), given.pop("name"), given.pop("ledger"), **given)
        assert ledger.listener is None
    with Fleet(valkey.url, NAME, ledger, learn=False) as one, pytest.raises(ValueError, match="of one fleet"):
        Fleet(valkey.url, NAME, ledger)
    assert ledger.listener is None
    with pytest.raises(ValueError, match="closed"):
        one.start()


# -- election and fence

def test_the_office_is_held_by_one_and_its_fence_only_grows(server: Server) -> None:
    with Link(server.url).client as _:
        a, b = (Office(Link(server.url), NAMES, 0.15) for _ in range(2))
        assert a.stand(0) and not b.stand(0) and a.fence == 1 and a.renew()
        a.leave()
        assert not a.held and b.stand(0) and b.fence == 2
        time.sleep(0.2)         # it did not renew
        assert a.stand(0) and a.fence == 3
        assert not b.renew() and not b.held
        a.leave()
        assert b.stand(41) and b.fence == 42, "higher than all that the candidate has seen"
        b.leave()
        for office in (a, b):
            office._server.close()


def test_a_learner_that_was_paused_publishes_nothing(server: Server) -> None:
    """It believes that it holds the office; the script that publishes knows better."""
    paused, other = (Office(Link(server.url), NAMES, 0.1) for _ in range(2))
    with server.client() as client:
        assert paused.stand(0)
        time.sleep(0.15)
        assert other.stand(0) and other.publish({"fence": 2, "version": 1, "body": b"new"})
        assert paused.held and not paused.publish({"fence": 1, "version": 9, "body": b"old"}) and not paused.held
        assert client.hget(NAMES.model, "body") == b"new"
        # Nor when its successor is gone too: nobody holds the lock, and the fence is past it.
        paused.fence = 1
        time.sleep(0.15)
        assert not paused.publish({"fence": 1, "version": 9, "body": b"old"})
        # Nor when its time was over and nobody has taken its place yet.
        assert paused.stand(0)
        time.sleep(0.15)
        assert not paused.publish({"fence": 4, "version": 1, "body": b"old"})
        # Nor with a lock of its own name, when somebody has seen a higher fence.
        assert other.stand(0)
        client.set(NAMES.fence, 77)
        assert not other.publish({"fence": 3, "version": 1, "body": b"old"}) and client.hget(NAMES.model, "body") == b"new"
    for office in (paused, other):
        office._server.close()


def test_a_fence_of_nonsense_on_the_server_is_none(valkey: Server) -> None:
    office = Office(Link(valkey.url), NAMES, 1.0)
    with valkey.client() as client:
        for nonsense in ("x", "nan", "1e300", "-5"):
            client.delete(NAMES.lock)
            client.set(NAMES.fence, nonsense)
            assert office.stand(7) and office.fence == 8
    office._server.close()


def test_who_takes_over_goes_on_where_the_last_learner_left(valkey: Server, worker: Callable[..., Worker]) -> None:
    first, second = worker(valkey), worker(valkey)
    shared, rows = Shared(), list(requests(1600))
    first.serve(shared, rows[:800])
    first.learn(lambda: first.heard("model_published"))
    with valkey.client() as client:
        _, about = models.loads(client.hget(NAMES.model, "body"))
        assert about.read != "0-0"
        first.serve(shared, rows[800:])
        client.delete(NAMES.lock)       # its time is over
    second.learn(lambda: second.heard("model_published"))
    told = second.heard("model_published")[-1]
    sent = first.fleet.stats().sent
    assert told["fence"] == 2 and told["events"] <= sent
    second.learn(lambda: second.fleet._learner.pupil.events == sent)
    assert not second.heard("stream_trimmed") and not second.heard("batch_skipped")


# -- models that are no good

def test_a_good_model_is_installed(valkey: Server, worker: Callable[..., Worker], body: bytes) -> None:
    one = worker(valkey, learn=False)
    before = one.cells()
    offer(valkey, body)
    one.fleet.step()
    assert one.heard("model_installed") == [{"fence": 3, "version": 2, "events": 100}] and one.cells().sum() > before.sum()
    one.fleet.step()
    assert len(one.heard("model_installed")) == 1, "once"


def signed(rest: bytes) -> bytes:
    """What anybody can write who has read the source."""
    return models.MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def flipped(body: bytes) -> bytes:
    return body[:-100] + bytes([body[-100] ^ 1]) + body[-99:]


@pytest.mark.parametrize(("spoil", "reason"), [
    (flipped, "damaged"), (lambda body: body[:-1], "damaged"), (lambda body: body[:300], "damaged"), (lambda body: b"", "not a model"),
    (lambda body: b"something else", "not a model"), (lambda body: signed(b"[" * 100_000 + b"\n"), "not one that this version can read"), (lambda body: body.replace(b"model 1", b"model 2", 1), "has format 'adaptcache fleet model 2'"),
], ids=["a bit", "cut", "cut short", "empty", "foreign", "too deep", "another version"])
def test_a_model_that_is_no_good_is_refused_once_and_changes_nothing(
        valkey: Server, worker: Callable[..., Worker], body: bytes, spoil: Callable[[bytes], bytes], reason: str) -> None:
    one = worker(valkey, learn=False)
    one.serve(Shared(), requests(300))
    before = one.cells()
    offer(valkey, spoil(body))
    one.fleet.step()
    one.fleet.step()
    refused = one.heard("model_refused")
    assert len(refused) == 1 and reason in refused[0]["reason"] and not one.heard("model_installed")
    assert (one.cells() == before).all() and one.fleet.stats().refused == 1
    # It learns by itself all the while, and takes the next good one.
    one.serve(Shared(), [(now + 1000, key) for now, key in requests(300)])
    one.ledger.step()
    assert one.cells().sum() > before.sum()
    offer(valkey, body, version=2)
    with valkey.client() as client:
        client.hset(NAMES.model, "version", 1)
    one.fleet.step()
    assert "says that it is" in one.heard("model_refused")[-1]["reason"]
    offer(valkey, body)
    one.fleet.step()
    assert one.heard("model_installed")


def test_a_model_of_an_older_fence_is_refused(valkey: Server, worker: Callable[..., Worker], body: bytes) -> None:
    one = worker(valkey, learn=False)
    offer(valkey, body)
    one.fleet.step()
    known, _ = models.loads(body)
    older = models.dumps(known, replace(ABOUT, fence=2, version=900))
    offer(valkey, older, fence=2, version=900)
    one.fleet.step()
    assert "is older than (3, 2)" in one.heard("model_refused")[0]["reason"] and one.fleet.stats().fence == 3


@pytest.mark.parametrize(("changes", "said"), [({"memory_price": 0.5}, "price"), ({"window": 3.0}, "window"), ({"predictors": ("table",)}, "experts")])
def test_a_model_that_was_learned_under_other_rules_is_refused(
        valkey: Server, worker: Callable[..., Worker], body: bytes, changes: dict[str, Any], said: str) -> None:
    one = worker(valkey, learn=False, spec=replace(SPEC, **changes))
    before = one.cells()
    offer(valkey, body)
    one.fleet.step()
    assert said in one.heard("model_refused")[0]["reason"] and (one.cells() == before).all()


@pytest.mark.parametrize("options", [{"salt": b"another"}, {"spec": replace(SPEC, miss_cost=2.0)}])
def test_a_model_of_other_keys_or_costs_is_refused(valkey: Server, worker: Callable[..., Worker], body: bytes, options: dict[str, Any]) -> None:
    one = worker(valkey, learn=False, **options)
    offer(valkey, body)
    one.fleet.step()
    assert "another salt, miss cost" in one.heard("model_refused")[0]["reason"]


def test_who_has_other_rules_than_the_fleet_says_so_and_does_not_stand_for_election(valkey: Server, worker: Callable[..., Worker]) -> None:
    first, other = worker(valkey, learn=False), worker(valkey, spec=replace(SPEC, memory_price=0.5))
    first.fleet.step()
    other.fleet.step()
    assert "price=0.02" in other.heard("configuration_differs")[0]["fleet"]
    assert other.fleet._study() > 0 and not other.fleet._learner.office.held
    assert not first.heard("configuration_differs")


@pytest.mark.parametrize("said", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"price": "x"}'], ids=lambda said: repr(said[:9]))
def test_rules_of_nonsense_on_the_server_are_other_rules(valkey: Server, worker: Callable[..., Worker], said: bytes) -> None:
    one = worker(valkey)
    with valkey.client() as client:
        client.set(NAMES.configuration, said)
    one.fleet.step()
    assert one.heard("configuration_differs") and one.fleet.stats().connected


def test_a_model_that_a_worker_of_another_version_wrote_lies_elsewhere(valkey: Server, worker: Callable[..., Worker], body: bytes) -> None:
    """Two versions in one fleet: each has its own lock, fence and model; they share the stream."""
    assert Names(NAME, mark="0ther").model != NAMES.model and Names(NAME, mark="0ther").stream == NAMES.stream
    one = worker(valkey, learn=False)
    with valkey.client() as client:
        client.hset(Names(NAME, mark="0ther").model, mapping={"fence": 9, "version": 9, "body": b"whatever the other one writes"})
    one.fleet.step()
    assert not one.events


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_model_that_was_changed_is_believed(body: bytes, data: st.DataObject) -> None:
    spoiled = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(spoiled[:data.draw(st.one_of(st.just(len(spoiled)), st.integers(0, len(spoiled))))])
    if cut != body:
        with pytest.raises(StateError):
            models.loads(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(("fence", "version", "made", "events", "position", "index", "read", "upto", "codec", "size", "more")),
                       st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2))), st.binary(max_size=60))
def test_a_forged_head_is_refused_and_never_unfolds_more_than_it_says(head: dict[str, Any], rest: bytes) -> None:
    said = json.dumps({"fence": 1, "version": 1, "made": 1.0, "events": 1, "position": "0-0", "index": 0, "read": "0-0", "upto": 0.0, "rules": "", "codec": "zlib", "size": 10, **head}).encode() + b"\n" + rest
    with pytest.raises(StateError):
        models.loads(signed(said))


def test_a_model_says_what_a_state_says(body: bytes) -> None:
    known, about = models.loads(body)
    assert about == ABOUT
    again, _ = state.unpacked(state.packed(known, None), "again")
    assert again is not None and (again.arrays["everyone"] == known.arrays["everyone"]).all() and (again.keys == known.keys).all()


def test_a_model_has_a_bounded_size_however_many_keys_were_seen() -> None:
    pupil = Pupil(SPEC)
    from adaptcache.fleet import pupil as room
    before, room.MOST_KEYS = room.MOST_KEYS, 100
    try:
        pupil.tell(Event(number, number * 0.001 + at, PUT, 1.0, 0.2) for at in range(3) for number in range(1, 400))
        known = pupil.knows()
    finally:
        room.MOST_KEYS = before
    assert len(known.keys) == 100 and known.keys["hash"].min() == 300, "the latest"


# -- the stream

def test_a_stream_that_was_trimmed_past_the_reader_is_said_and_survived(valkey: Server, worker: Callable[..., Worker]) -> None:
    one = worker(valkey)
    shared, rows = Shared(), list(requests(2400))
    one.serve(shared, rows[:800])
    one.learn(lambda: one.heard("model_published"))
    one.serve(shared, rows[800:1600])
    with valkey.client() as client:
        lost = client.xtrim(NAMES.stream, maxlen=0)
    assert lost > 0
    one.serve(shared, rows[1600:])
    sent = one.fleet.stats().sent
    one.learn(lambda: one.heard("model_published")[-1]["events"] > 1000 and one.heard("stream_trimmed"))
    assert 0 < sum(each["batches"] for each in one.heard("stream_trimmed")) <= lost, "less what it had read before"
    assert one.fleet._learner.pupil.events < sent


def test_a_stream_that_begins_anew_is_read_from_its_beginning(valkey: Server, worker: Callable[..., Worker]) -> None:
    one = worker(valkey)
    shared, rows = Shared(), list(requests(1600))
    one.serve(shared, rows[:800])
    one.learn(lambda: one.heard("model_published"))
    learned = one.fleet._learner.pupil.events
    with valkey.client() as client:
        client.delete(NAMES.stream)
    one.serve(shared, rows[800:])
    one.learn(lambda: one.fleet._learner.pupil.events > learned + 400)
    assert one.heard("stream_began_anew") and not one.heard("stream_trimmed")


def test_what_is_no_batch_of_this_fleet_is_skipped_and_counted(valkey: Server, worker: Callable[..., Worker]) -> None:
    one, foreign = worker(valkey), worker(valkey, salt=b"another", learn=False)
    with valkey.client() as client:
        client.xadd(NAMES.stream, {"b": b"nonsense"})
        client.xadd(NAMES.stream, {"other": b"field"})
        foreign.fleet.step()        # the rules are this worker's now
        client.delete(NAMES.configuration)
        foreign.serve(Shared(), requests(100))
        one.serve(Shared(), requests(700))
    one.learn(lambda: one.heard("model_published"))
    reasons = [each["reason"] for each in one.heard("batch_skipped")]
    assert reasons[:2] == ["foreign"] * 2 and set(reasons[2:]) == {"another salt"}
    assert one.heard("model_published")[-1]["events"] <= one.fleet.stats().sent


def test_the_learner_says_how_much_the_fleet_is_to_tell(valkey: Server, worker: Callable[..., Worker]) -> None:
    busy, calm = worker(valkey, rate=20.0, interval=0.05, learn=False), worker(valkey)
    calm.fleet.step()
    shared = Shared()
    busy.serve(shared, requests(600))
    busy.fleet.step()
    assert busy.fleet.stats().level > 0
    busy.ledger.got(b"x", True)
    for at in range(2000):
        busy.ledger.got(b"more %d" % at, True)
    busy.fleet.step()
    calm.learn(lambda: calm.fleet._learner.level > 0)
    calm.fleet.step()
    assert calm.fleet.stats().level == calm.fleet._learner.level
    # What is left is what all have in common.
    assert calm.fleet._tap.need == 0


def test_only_keys_that_all_tell_of_are_learned_from(valkey: Server, worker: Callable[..., Worker]) -> None:
    """Of a key that one worker leaves out, the requests that the others tell of are a part."""
    one = worker(valkey)
    events = [Event(NUMBERS // 100 * at, 1.0 + at, PUT, 1.0, 0.2) for at in range(100)]
    with valkey.client() as client:
        for sender, level in ((1, 2), (2, 0)):
            told = [event for event in events if event.number <= NUMBERS >> level]
            client.xadd(NAMES.stream, {"b": pack(told, sender=sender, level=level, salt=one.fleet._configuration.salt)})
    one.learn(lambda: one.fleet._learner.office.held and not one.fleet._learner._waiting and one.fleet._learner._batches)
    assert one.fleet._learner.pupil.events == 26 * 2


def test_the_stream_stays_bounded(valkey: Server, worker: Callable[..., Worker]) -> None:
    from adaptcache.fleet import worker as room
    one = worker(valkey, learn=False)
    before, room.MAXLEN = room.MAXLEN, 20
    try:
        for round_ in range(300):
            for at in range(200):
                one.ledger.got(b"key %d %d" % (round_, at), False)
            one.fleet.step()
    finally:
        room.MAXLEN = before
    with valkey.client() as client:
        assert client.xlen(NAMES.stream) <= 40 and 0 < client.ttl(NAMES.stream) <= 86_400


# -- trouble

def test_who_is_cut_off_learns_by_himself_and_counts_what_he_could_not_tell(valkey_server: Callable[..., Server], worker: Callable[..., Worker]) -> None:
    server = valkey_server()
    one = worker(server, learn=False)
    shared, rows = Shared(), list(requests(900))
    one.serve(shared, rows[:300])
    before, sent = one.cells().sum(), one.fleet.stats().sent
    server.kill()
    for at, (now, key) in enumerate(rows[300:600]):
        one.clock.now = now
        shared.ask(one.ledger, key, now)
        if at % 100 == 99:
            one.fleet._pause()
    one.ledger.step()
    assert one.cells().sum() > before and len(one.heard("cut_off")) == 1 and not one.fleet.stats().connected
    assert one.fleet.stats().sent == sent and one.fleet.stats().dropped > 300
    server.start()
    until(lambda: (one.fleet._pause(), one.fleet.stats().connected)[1], "the worker is back")
    assert one.heard("back") and one.heard("cut_off")[0]["reason"]
    one.serve(shared, rows[600:])
    assert one.fleet.stats().sent > sent


def test_a_full_server_costs_events_and_nothing_else(valkey_server: Callable[..., Server], worker: Callable[..., Worker]) -> None:
    server = valkey_server(maxmemory_policy="noeviction")
    one = worker(server, learn=False)
    one.serve(Shared(), requests(100))
    with server.client() as client:
        client.config_set("maxmemory", "1mb")       # less than an empty server takes
        for at in range(200):
            one.ledger.got(b"%d" % at, False)
        one.fleet._pause()
        assert one.fleet.stats().dropped >= 200 and one.heard("cut_off")
        client.config_set("maxmemory", "100mb")
        until(lambda: (one.fleet._pause(), one.fleet.stats().connected)[1], "the worker is back")


def test_a_server_that_says_nothing_does_not_hold_up_a_request(valkey_server: Callable[..., Server], wire: Callable[[int], Wire]) -> None:
    """The request's path knows no socket: with the wire cut, requests go on while the thread waits."""
    server = valkey_server()
    proxy = wire(server.port)
    events: list[str] = []
    ledger = Ledger(replace(SPEC, learner="thread"), salt=SALT)
    with Fleet(f"redis://127.0.0.1:{proxy.port}", NAME, ledger, interval=0.02, learn=False, on_event=lambda what, _: events.append(what)) as one:
        until(lambda: one.stats().connected, "connected")
        proxy.cut()
        time.sleep(0.1)
        began = time.monotonic()
        for at in range(1000):
            ledger.got(b"%d" % at, False)
        assert time.monotonic() - began < 2.0, "the thread's time-out is 3 s"
        until(lambda: "cut_off" in events, "the thread noticed")
        proxy.mend()
        until(lambda: "back" in events, "it is back")
    ledger.close()


def test_an_observer_that_raises_is_not_called_again(valkey: Server, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def watch(what: str, details: Any) -> None:
        calls.append(what)
        raise RuntimeError("of the user's")

    ledger = Ledger(SPEC, salt=SALT, timer=Clock())
    one = Fleet(valkey.url, NAME, ledger, learn=False, on_event=watch, near=lambda: 1 / 0)
    with valkey.client() as client:
        for fence in (1, 2):
            client.hset(NAMES.model, mapping={"fence": fence, "version": 1, "body": b"no"})
            one.step()
    one.close()
    one.close()
    assert calls == ["model_refused"] and "not called again" in caplog.text


# -- snapshots

def test_a_worker_shows_itself_and_leaves_no_trace_when_it_goes(valkey: Server, worker: Callable[..., Worker]) -> None:
    one = worker(valkey, near=lambda: {"ready": True, "hits": 5, "object": object()})
    one.serve(Shared(), requests(300))
    with valkey.client() as client:
        assert client.zcard(NAMES.workers) == 1
        ttl = client.pttl(NAMES.worker(one.fleet.id))
        assert 0 < ttl <= 6000
        shown = one.fleet.snapshot()
        assert shown["near"] == {"ready": True, "hits": 5} and shown["hits"] + shown["misses"] > 0
        assert shown["premature"] + shown["in_flight"] <= shown["budget"] and shown["protected"] > 0
        one.fleet.close()
        assert client.zcard(NAMES.workers) == 0 and not client.exists(NAMES.worker(one.fleet.id), NAMES.lock)


def test_a_learner_of_its_own_takes_the_rules_from_the_workers(valkey: Server, worker: Callable[..., Worker]) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    alone = Alone(valkey.url, NAME, tell=lambda what, **details: events.append((what, details)), publish=0.1, share=1.0)
    alone.step()
    assert not events and alone.snapshot()["learner"] is None
    one = worker(valkey, learn=False)
    one.serve(Shared(), requests(800))
    alone._looked = float("-inf")
    alone.step()
    assert alone._learner is not None
    alone._learner._hold = 0.0
    until(lambda: (alone.step(), any(what == "model_published" for what, _ in events))[1], "it publishes")
    one.fleet.step()
    assert one.heard("model_installed") and alone.snapshot()["learner"]["fence"] == 1
    alone.close()
    with valkey.client() as client:
        assert not client.exists(NAMES.lock)


# -- lives

def started(one: Fleet) -> weakref.ref[Fleet]:
    one.start()
    until(lambda: one.stats().connected, "connected")
    return weakref.ref(one)


def test_a_fleet_that_nobody_has_any_more_is_collected_and_its_threads_end(valkey: Server) -> None:
    before = threading.active_count()
    ledger = Ledger(SPEC, salt=SALT)
    gone = started(Fleet(valkey.url, NAME, ledger, interval=0.02))
    until(lambda: (gc.collect(), gone() is None)[1], "it is collected")
    until(lambda: threading.active_count() <= before, "its threads have ended")
    ledger.put(b"a")            # its listener keeps nothing
    assert ledger.listener.take() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_a_worker_of_its_own(valkey: Server) -> None:
    ledger = Ledger(replace(SPEC, learner="thread"), salt=SALT)
    with Fleet(valkey.url, NAME, ledger, interval=0.02, learn=False) as one, valkey.client() as client:
        until(lambda: client.zcard(NAMES.workers) == 1, "the parent is there")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os.close(read)
            try:
                end = time.monotonic() + 15
                while one.stats().workers < 2 and time.monotonic() < end:
                    time.sleep(0.02)
                    one._shown = 0.0
                os.write(write, one.id.encode())
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.close(write)
        said = os.read(read, 200).decode()
        os.close(read)
        os.waitpid(child, 0)
        assert said and said != one.id and client.zscore(NAMES.workers, said) is not None
        assert client.zcard(NAMES.workers) == 2
    ledger.close()


def test_import_adaptcache_brings_no_redis() -> None:
    import subprocess
    import sys
    subprocess.run([sys.executable, "-P", "-c", "import sys, adaptcache; assert 'redis' not in sys.modules and 'adaptcache.fleet' not in sys.modules"], check=True)


def test_the_servers_time_is_known_to_half_of_the_quickest_answer() -> None:
    clock = Clock(100.0)
    served = ServerTime(clock)
    assert served.now() == 100.0 and not served.known
    served.heard(100.0, 101.0, 5000.0)         # a slow answer
    served.heard(102.0, 102.002, 5002.001)    # a quick one
    served.heard(103.0, 104.0, 5009.0)
    assert served.ahead == pytest.approx(4900.0, abs=1e-6)
    assert np.isfinite(served.now())

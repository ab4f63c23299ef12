"""What a fleet's workers tell: sampled, bounded, packed; damaged and foreign bytes are told apart; one learns from it as if all were one."""
from __future__ import annotations

import functools
import random
import struct
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from fleets import SALT, SPEC, Clock, Shared, requests
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache.fleet import batches
from adaptcache.fleet.batches import UNKNOWN, Batch, Event, Spoiled, pack, unpack
from adaptcache.fleet.names import NUMBERS, Names
from adaptcache.fleet.pupil import Pupil
from adaptcache.fleet.tap import CALM, EACH, Tap
from adaptcache.learn.knowledge import SAME_EVERYWHERE, Knowledge
from adaptcache.learn.packing import ARRAYS
from adaptcache.ledger import GONE, GOT, MISSED, PUT, Ledger

amounts = st.one_of(st.just(UNKNOWN), st.floats(0, 2.0**90, width=32))
labels = st.recursive(st.one_of(st.none(), st.text(max_size=20), st.binary(max_size=20), st.integers(-10**6, 10**6)),
                      lambda inner: st.tuples(inner.filter(lambda label: label is not None), st.text(max_size=5)), max_leaves=3)
events = st.builds(Event, st.integers(0, NUMBERS), st.floats(1.7e9, 1.7e9 + 60), st.sampled_from((PUT, GOT, MISSED, GONE)), amounts, amounts, amounts,
                   labels, st.one_of(st.none(), st.dictionaries(st.text(max_size=9), st.one_of(st.text(max_size=9), st.floats(-1e9, 1e9)), min_size=1, max_size=8)))


# -- batches

@settings(deadline=None)
@given(st.lists(events, max_size=40), st.integers(0, 2**63 - 1), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_a_batch_says_what_was_packed(told: list[Event], sender: int, level: int, salt: int) -> None:
    batch = unpack(pack(told, sender=sender, level=level, need=level // 2, salt=salt), salt=salt)
    assert isinstance(batch, Batch)
    assert (batch.sender, batch.level, batch.need) == (sender, level, level // 2)
    told = sorted(told, key=lambda event: event.at)
    assert len(batch.events) == len(told)
    for got, gave in zip(batch.events, told, strict=True):
        assert got._replace(at=0) == gave._replace(at=0, namespace=got.namespace) and got.namespace == gave.namespace
        assert got.at == pytest.approx(gave.at, abs=2e-6)


SAMPLE = pack([Event(n, 1.7e9 + n, PUT, 1.0, 2.0, 3.0, "label", {"a": 1.0, "b": "x"}) for n in range(20)], sender=7, salt=9)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_batch_is_never_believed_and_never_raises(data: st.DataObject) -> None:
    spoiled = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoiled) - 1))
        spoiled[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(spoiled[:data.draw(st.one_of(st.just(len(spoiled)), st.integers(0, len(spoiled))))])
    assert cut == SAMPLE or isinstance(unpack(cut, salt=9), Spoiled)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.data())
def test_hostile_batches_with_a_right_checksum_are_refused_or_hold_numbers_in_range(body: bytes, data: st.DataObject) -> None:
    """Whoever can write to the stream can compute a CRC; all that he may do is to tell of requests."""
    columns = data.draw(st.binary(min_size=0, max_size=120)) + body
    said = struct.pack("<4sBBBxIQdII", b"acfe", 1, 0, 0, 9, 7, data.draw(st.floats()), data.draw(st.integers(0, 2**32 - 1)),
                       data.draw(st.one_of(st.just(len(columns)), st.integers(0, 2**32 - 1)))) + zlib.compress(columns)
    got = unpack(said + struct.pack("<I", zlib.crc32(said)), salt=9)
    if isinstance(got, Batch):
        assert all(0 <= event.number <= NUMBERS and event.what in (PUT, GOT, MISSED, GONE) for event in got.events)


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    body = zlib.compress(bytes(1 << 26), 9)
    said = struct.pack("<4sBBBxIQdII", b"acfe", 1, 0, 0, 9, 7, 0.0, 1, 1 << 26) + body
    assert unpack(said + struct.pack("<I", zlib.crc32(said)), salt=9) == Spoiled("damaged: larger than any batch")


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "foreign"), (None, "foreign"), ("text", "foreign"), (b"something else altogether, and quite long, too", "foreign"),
    (b"acfe\x02" + SAMPLE[5:], "format 2"), (SAMPLE[:-1], "damaged"),
])
def test_what_is_no_batch_is_told_with_its_reason(data: object, reason: str) -> None:
    assert unpack(data, salt=9) == Spoiled(reason)
    assert unpack(SAMPLE, salt=8) == Spoiled("another salt")


def test_a_batch_of_a_time_that_no_model_may_have_is_refused() -> None:
    assert isinstance(unpack(pack([Event(1, 1e11, PUT)], sender=1, salt=1), salt=1), Batch)
    assert not unpack(pack([Event(1, 1.1e11, PUT)], sender=1, salt=1), salt=1)
    assert not unpack(pack([Event(1, -1.1e11, PUT)], sender=1, salt=1), salt=1)


def test_an_objects_label_and_labels_that_are_too_long_stay_at_home() -> None:
    deep = functools.reduce(lambda inner, _: (inner,), range(2000), ())
    told = [Event(1, 0.0, PUT, namespace=object()), Event(2, 0.0, PUT, namespace="x" * 1000), Event(3, 0.0, PUT, features={"n": float("nan"), "m": 2}),
            Event(4, 0.0, PUT, namespace=10**5000), Event(5, 0.0, PUT, namespace=deep)]
    batch = unpack(pack(told, sender=1, salt=1), salt=1)
    assert isinstance(batch, Batch)
    assert [event.namespace for event in batch.events] == [None] * 5 and batch.events[2].features == {"m": 2.0}


# -- the tap

def test_workers_of_one_salt_tell_of_the_same_keys_at_every_rate() -> None:
    taps = [Tap(), Tap()]
    for tap, level in zip(taps, (3, 3), strict=True):
        tap.follow(level)
    ledgers = [Ledger(SPEC, salt=SALT, timer=Clock()) for _ in taps]
    for tap, ledger in zip(taps, ledgers, strict=True):
        ledger.listener = tap
        for at in range(4000):
            ledger.put(b"key %d" % at)
    told = [{event.number for event in tap.take()} for tap in taps]
    assert told[0] == told[1] and 400 < len(told[0]) < 600
    taps[0].follow(4)
    for at in range(4000):
        ledgers[0].got(b"key %d" % at, True)
    halved = {event.number for event in taps[0].take()}
    assert halved < told[0] and 180 < len(halved) < 320
    assert {ledgers[0].number(b"key %d" % at) for at in range(4000)} >= told[0]


def test_what_comes_too_fast_halves_the_sample_and_is_counted() -> None:
    tap, dice = Tap(room=200), random.Random(1)
    for _ in range(1000):
        tap(PUT, dice.randrange(NUMBERS), 0.0, 1.0, None, None, None, None)
    assert tap.need > 0 and tap.dropped > 0
    kept = tap.take()
    assert len(kept) <= 200 and len(kept) + tap.dropped <= 1000
    assert all(event.number <= tap.kept for event in kept), "whole keys are let go, not single events"


def test_a_rate_above_the_allowed_one_halves_the_sample_and_calm_doubles_it_again() -> None:
    tap = Tap()
    tap.pace(101, 100.0)
    assert tap.level == 1 and tap.kept == NUMBERS >> 1
    for _ in range(CALM - 1):
        tap.pace(10, 100.0)
    assert tap.level == 1
    tap.pace(10, 100.0)
    assert tap.level == 0 and tap.kept == NUMBERS
    tap.follow(5)
    assert tap.level == 5 and tap.need == 0


def test_a_key_that_is_asked_for_all_the_time_is_told_of_in_part() -> None:
    tap = Tap()
    for _ in range(1000):
        tap(GOT, 5, 0.0, 0.0, None, None, None, None)
    assert len(tap.take()) == EACH and tap.folded == 1000 - EACH and tap.dropped == 0


def test_a_tap_that_is_stopped_keeps_nothing() -> None:
    tap = Tap()
    tap(GOT, 5, 0.0, 0.0, None, None, None, None)
    tap.stop()
    tap(GOT, 0, 0.0, 0.0, None, None, None, None)
    tap.follow(0)
    tap(GOT, 0, 0.0, 0.0, None, None, None, None)
    assert tap.take() == []


def test_threads_lose_no_event_without_saying_so() -> None:
    tap, taken, done = Tap(room=300), [], threading.Event()

    def tell(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(5000):
            tap(MISSED, dice.randrange(NUMBERS), 0.0, 0.0, None, None, None, None)

    def take() -> None:
        while not done.is_set():
            taken.extend(tap.take())

    reader = threading.Thread(target=take)
    writers = [threading.Thread(target=tell, args=(seed,)) for seed in range(3)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    taken += tap.take()
    assert 0 < len(taken) <= 15_000 and len(taken) + tap.dropped <= 15_000


# -- the pupil

def knows(cache: object) -> Knowledge:
    learned = cache._knowledge()        # type: ignore[attr-defined]
    assert learned is not None
    return learned


@functools.cache
def heard(count: int = 2500, seed: int = 1) -> tuple[Ledger, tuple[Event, ...]]:
    """A ledger that served the workload, and what it told of it."""
    clock, told = Clock(), []
    ledger = Ledger(SPEC, salt=SALT, timer=clock)

    def listen(kind, number, at, size, cost, ttl, namespace, features):
        told.append(Event(number, at, kind, size, UNKNOWN if cost is None else cost, UNKNOWN if ttl is None else ttl, namespace, features))

    ledger.listener = listen
    shared = Shared()
    for at, (now, key) in enumerate(requests(count, seed)):
        clock.now = now
        shared.ask(ledger, key, now)
        if at % 256 == 0:
            ledger.step()
    return ledger, tuple(told)


@functools.cache
def taught() -> Pupil:
    pupil = Pupil(SPEC)
    pupil.tell(heard()[1])
    return pupil


def test_a_pupil_learns_from_events_what_the_ledger_learned_from_requests() -> None:
    ledger, told = heard()
    pupil = taught()
    assert pupil.events == len(told)
    mine, theirs = pupil.knows(), knows(ledger.cache)
    assert mine.config == theirs.config and mine.hashing == SAME_EVERYWHERE
    assert mine.numbers["waits"] == pytest.approx(theirs.numbers["waits"], rel=0.02)
    for name in ("everyone", "habit"):
        n, m = mine.arrays[name]["n"], theirs.arrays[name]["n"]
        assert n.sum() == pytest.approx(m.sum(), rel=0.02)
        p, q = mine.arrays[name]["p"], theirs.arrays[name]["p"]
        assert float(np.abs(p - q)[(n > 30) & (m > 30)].max()) < 0.05
    counts = [{int(key["hash"]): int(key["count"]) for key in known.keys if key["count"] > 2} for known in (mine, theirs)]
    same = counts[0].keys() & counts[1].keys()
    # The core counts with dice; the pupil's fall otherwise, since its time begins with the first event.
    assert len(same) > 40 and sum(abs(counts[0][key] - counts[1][key]) <= 3 for key in same) > 0.9 * len(same)


def test_a_pupils_knowledge_serves_another_ledger_with_keys_that_it_never_saw() -> None:
    """A fleet's point: what one worker saw of a key, another one knows."""
    pupil = taught()
    other = Ledger(SPEC, salt=SALT, timer=Clock())
    pupil.knows().install(other.cache, other.cache._trainer)
    followed = {int(key["hash"]): int(key["count"]) for key in knows(other.cache).keys}
    assert followed[other.number(b"often 7")] > 10
    assert {ARRAYS[name][0] for name in ARRAYS} and knows(other.cache).numbers["waits"] == pupil.waits


def test_a_miss_of_what_another_process_removed_is_a_request_to_the_pupil() -> None:
    """The ledger tells `gone` and `put`: whoever asked found nothing, and loaded it."""
    pupil, clear = Pupil(SPEC), Pupil(SPEC)
    for at in range(200):
        pupil.tell([Event(7, at * 1.0, GONE), Event(7, at + 0.01, PUT, 1.0, 1.0)])
        clear.tell([Event(7, at + 0.01, MISSED), Event(7, at + 0.01, PUT, 1.0, 1.0)])
    assert int(pupil.knows().keys["count"][0]) == pytest.approx(int(clear.knows().keys["count"][0]), rel=0.3)
    # The hazard of a wait that ends after a second is the same.
    p, q = (one.knows().arrays["everyone"]["p"] for one in (pupil, clear))
    assert float(np.abs(p - q).max()) < 0.02


def test_a_worker_that_begins_to_follow_a_key_has_not_written_it() -> None:
    """Its ledger hears of a hit on a key that it did not know, and then what was found: one request, no write."""
    pupil, clear = Pupil(SPEC), Pupil(SPEC)
    for one in (pupil, clear):
        one.tell([Event(7, 0.0, MISSED), Event(7, 0.001, PUT, 1.0, 1.0)])
    for at in range(1, 100):
        clear.tell([Event(7, at * 1.0, GOT)])
        pupil.tell([Event(7, at * 1.0, GOT), Event(7, at + 0.0005, PUT, 1.0, 1.0)])
    assert pupil.waits == clear.waits
    assert (pupil.knows().arrays["everyone"]["q"] == clear.knows().arrays["everyone"]["q"]).all()


def tell(tap: Tap, pupil: Pupil) -> None:
    """What a ledger said, through its tap and a batch to a pupil."""
    batch = unpack(pack(tap.take(), sender=1, salt=1), salt=1)
    assert isinstance(batch, Batch)
    pupil.tell(batch.events)


def test_namespace_and_features_reach_the_learner() -> None:
    pupil, tap, ledger = Pupil(SPEC), Tap(), Ledger(SPEC, salt=SALT, timer=Clock(1.0))
    ledger.listener = tap
    ledger.put(b"a", namespace="n", features={"hour": 3, "plan": "free"})
    tell(tap, pupil)
    assert pupil.knows().features == ["hour", "plan"] and list(pupil.knows().namespaces) == ["n"]


@pytest.mark.parametrize("even", [None, 2.0])
def test_a_pupils_keys_break_even_when_the_ledgers_do(even: float | None) -> None:
    """By cost, size and price, or by the expiry as it was written, which is longer than what is left of it."""
    spec = SPEC if even is None else replace(SPEC, memory_price=None)
    tap, ledger = Tap(), Ledger(spec, salt=SALT, timer=Clock(1.0), break_even_ttl=even)
    pupil = Pupil(ledger.expiry, even=ledger.break_even_ttl)
    ledger.listener = tap
    keys = {b"plain": {}, b"dear": {"cost": 5.0, "ttl": 40.0}, b"big": {"size": 8.0, "ttl": 70.0}, b"late": {"ttl": 3.0, "nominal": 10.0}}
    for key, words in keys.items():
        ledger.put(key, **words)
    tell(tap, pupil)
    for key in keys:
        mine = pupil.cache._explain(pupil._held[ledger.number(key)])["breakeven"]
        assert mine == pytest.approx(ledger.cache._explain(ledger.number(key))["breakeven"]), key


def test_late_events_count_as_ones_of_now_and_time_never_runs_back() -> None:
    pupil = Pupil(SPEC)
    pupil.tell([Event(1, 100.0, PUT), Event(2, 50.0, PUT), Event(1, 99.0, GOT)])
    assert pupil._now == pytest.approx(100.0, abs=1e-3)


def test_a_pupil_goes_on_from_a_model_and_refuses_one_of_other_rules() -> None:
    known = taught().knows()
    second = Pupil(SPEC)
    second.install(known)
    assert second.waits == known.numbers["waits"]
    with pytest.raises(ValueError, match=r"price 0.02, here 0.5"):
        Pupil(replace(SPEC, memory_price=0.5)).install(known)


# -- names

def test_all_keys_of_a_fleet_lie_in_one_slot_and_its_name_is_checked() -> None:
    names = Names("shop-1")
    assert all("{shop-1}" in key for key in (names.stream, names.lock, names.model, names.worker("x"), names.workers, names.level))
    for bad in ("", "a b", "x{y}", "x" * 101):
        with pytest.raises(ValueError, match="name: "):
            Names(bad)
    with pytest.raises(TypeError, match="name: "):
        Names(3)        # type: ignore[arg-type]
    assert batches.MOST < 1 << 16

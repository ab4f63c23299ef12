"""`adaptcache top`: a fleet in a terminal, from the snapshots that its workers leave on the server.

`look` asks the server and gives plain values; `page` draws them. Neither writes anything. A server that is down is said, and
asked again.
"""
from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from adaptcache.fleet.names import Names
from adaptcache.fleet.server import Server, ServerTime, Trouble
from adaptcache.simulate.extras import needs

with needs("the view of a fleet"):
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.markup import escape
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

PAUSE = 1.0
SHOWN_EXPERTS = 6
SUMS = ("hits", "misses", "premature", "in_flight", "protected", "budget", "miss_cost", "rent", "sent", "dropped", "entries", "size", "expirations")
ENDLESS = ("size", "budget")        # None stands for inf
MODEL = ("fence", "version", "refused")
LEARNER = ("fence", "events", "waiting")


class Fleets:
    """Where to look."""

    def __init__(self, client: Any, name: str) -> None:
        self.names = Names(name)
        self._server = Server(client)
        self._time = ServerTime(time.time)
        # Worker -> hits and misses when they last changed, and the hit ratio and the number of requests of the time before that.
        self._before: dict[str, tuple[int, int, float | None, int]] = {}

    def look(self) -> dict[str, Any]:
        """Everything about the fleet at this moment. Raises what redis-py raises."""
        client, names = self._server.client, self.names
        self._time.look(self._server, names.stream)
        with client.pipeline(transaction=False) as pipe:
            pipe.zrange(names.workers, 0, -1)
            pipe.get(names.lock)
            pipe.pttl(names.lock)
            pipe.get(names.fence)
            pipe.hmget(names.model, "fence", "version", "made")
            pipe.hstrlen(names.model, "body")
            pipe.xlen(names.stream)
            pipe.get(names.level)
            listed, lock, lock_left, fence, model, size, length, level = pipe.execute()
        shown = [client.get(names.worker(each.decode())) for each in listed]
        workers = [each for each in map(_snapshot, shown) if each is not None]
        for each in workers:
            if each["role"] == "worker":
                each["lately"] = self._lately(each)
        playing = [each for each in workers if each["role"] == "worker"]
        learner = next((each for each in workers if each.get("learner") and lock is not None
                        and each["learner"]["fence"] == _whole(lock.split(b" ")[0])), None)
        made = _number(model[2])
        return {
            "name": names.name, "at": self._time.now(), "workers": playing,
            "total": {name: sum(each.get(name) or 0 for each in playing) for name in SUMS} | {"lately": self._together(playing)},
            "weights": _mean(playing), "learner": None if learner is None else {"id": learner["id"], "role": learner["role"], **learner["learner"]},
            "lock": None if lock is None else {"fence": _whole(lock.split(b" ")[0]), "left": max(0, lock_left) / 1000}, "fence": _whole(fence),
            "model": None if model[0] is None else {"fence": _whole(model[0]), "version": _whole(model[1]), "bytes": size,
                                                    "age": max(0.0, self._time.now() - made)},
            "stream": length, "level": _whole(level),
        }

    def _lately(self, each: dict[str, Any]) -> float | None:
        """The hit ratio between its last two snapshots that were looked at."""
        known = self._before.get(each["id"])
        if known is None:
            known = each["hits"], each["misses"], None, 0
        hits, misses, ratio, asked = known
        now = each["hits"] + each["misses"] - hits - misses
        if now > 0:
            ratio, asked = (each["hits"] - hits) / now, now
        self._before[each["id"]] = each["hits"], each["misses"], ratio, asked
        each["asked_lately"] = asked
        return ratio

    def _together(self, workers: Sequence[dict[str, Any]]) -> float | None:
        asked = sum(each["asked_lately"] for each in workers)
        return sum((each["lately"] or 0) * each["asked_lately"] for each in workers) / asked if asked else None

    def close(self) -> None:
        self._server.close()


def _snapshot(said: bytes | None) -> dict[str, Any] | None:
    """A snapshot, or None where there is none or it is nobody's that this version knows."""
    try:
        each = json.loads(said or b"null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(each, dict) or each.get("role") not in ("worker", "learner") or not _name(each.get("id")):
        return None
    if each.get("learner") is not None and not _numbers(each["learner"], LEARNER):
        return None
    if each["role"] == "worker":
        weights = each.get("weights")
        told = [name for name in (*SUMS, *MODEL) if name not in ENDLESS or each.get(name) is not None]
        if not (_numbers(each, told) and isinstance(weights, dict) and _numbers(weights, weights) and all(map(_name, weights))
                and isinstance(each.get("near"), (dict, type(None)))):
            return None
    return each


def _name(said: Any) -> bool:
    """Text that a terminal shows and does not obey."""
    return isinstance(said, str) and said.isprintable()


def _numbers(said: Any, names: Iterable[str]) -> bool:
    return isinstance(said, dict) and all(isinstance(said.get(name), (int, float)) for name in names)


def _mean(workers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Weights of the experts, each worker's counted alike."""
    names = {name for each in workers for name in each["weights"]}
    shares = {name: sum(each["weights"].get(name, 0.0) for each in workers) / len(workers) for name in names}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _whole(said: Any) -> int:
    try:
        return int(said or 0)
    except ValueError:
        return 0


def _number(said: Any) -> float:
    try:
        return float(said or 0)
    except ValueError:
        return 0.0


# -- drawing

def page(seen: dict[str, Any]) -> RenderableType:
    """One look as a page."""
    return Panel(Group(_head(seen), "", _workers(seen), "", _promise(seen), _experts(seen)),
                 title=f"adaptcache: the fleet {seen['name']}", border_style="cyan")


def _head(seen: dict[str, Any]) -> RenderableType:
    learner, lock, model = seen["learner"], seen["lock"], seen["model"]
    if learner is not None:
        who = f"{learner['id']}{' (a process of its own)' if learner['role'] == 'learner' else ''}, fence {learner['fence']}, " \
              f"{learner['events']:,} events learned, {learner['waiting']:,} waiting"
    elif lock is not None:
        who = f"fence {lock['fence']}, whose snapshot is not there (yet)"
    else:
        who = "nobody holds the lock" + (f"; the last fence was {seen['fence']}" if seen["fence"] else "")
    lines = [("learner  ", who), ("model    ", "none yet" if model is None else
              f"fence {model['fence']}, version {model['version']}, {model['bytes'] / 1024:,.0f} KiB, {_ago(model['age'])} old"),
             ("stream   ", f"{seen['stream']:,} batches; of the keys " + ("all are" if not seen["level"] else f"one in {1 << seen['level']:,} is")
              + " told of")]
    return Text("\n").join(Text.assemble((name, "bold"), said) for name, said in lines)


def _workers(seen: dict[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, expand=True)
    for name, side in (("worker", "left"), ("hits", "right"), ("lately", "right"), ("requests", "right"), ("miss cost", "right"), ("rent", "right"),
                       ("lost + open <= may", "right"), ("near", "left"), ("model", "left"), ("told / dropped", "right")):
        table.add_column(name, justify=side, no_wrap=name == "worker")  # type: ignore[arg-type]
    for each in sorted(seen["workers"], key=lambda each: each["id"]):
        table.add_row(*_row(each, escape(each["id"]) + (" *" if each.get("learner") else ""), _near(each["near"]), _version(each)))
    if len(seen["workers"]) != 1:
        table.add_row(*_row(seen["total"], f"{len(seen['workers'])} workers", "", ""), style="bold")
    return table


def _row(each: dict[str, Any], who: str, near: str, model: str) -> list[str]:
    asked = each["hits"] + each["misses"]
    lately = each["lately"]
    return [who, f"{each['hits'] / asked:.1%}" if asked else "-", "-" if lately is None else f"{lately:.1%}", f"{asked:,}", f"{each['miss_cost']:,.1f}",
            f"{each['rent']:,.1f}", _books(each), near, model, f"{each['sent']:,} / {each['dropped']:,}"]


def _books(each: dict[str, Any]) -> str:
    budget = each["budget"]
    return f"{each['premature']:,} + {each['in_flight']:,} <= " + ("inf" if budget is None else f"{budget:,.1f}")


def _near(near: dict[str, Any] | None) -> str:
    if near is None:
        return "none"
    ready = near.get("ready")
    if ready is None and near.get("error"):
        return "?"
    size = near.get("size", near.get("currsize", near.get("entries")))
    said = "off" if ready is False else "on"
    return f"{said}, {size:,}" if isinstance(size, (int, float)) else said


def _version(each: dict[str, Any]) -> str:
    if not each["version"]:
        return "its own" if not each["refused"] else "refused"
    return f"{each['fence']}.{each['version']}"


def _promise(seen: dict[str, Any]) -> RenderableType:
    total = seen["total"]
    lost, flying, budget = total["premature"], total["in_flight"], total["budget"]
    # What one worker lost may be noticed by another, and told a moment later: until then more may be open than there is credit for.
    colour = "green" if lost + flying <= budget or not seen["workers"] else "yellow" if lost <= budget else "bold red"
    sign = "<=" if lost + flying <= budget else ">"
    return Text.assemble(("promise  ", "bold"), (f"{lost:,} requests lost to early removal + {flying:,} that may be {sign} {budget:,.1f} allowed, of "
                                                 f"{total['protected']:,} protected", colour))


def _experts(seen: dict[str, Any]) -> RenderableType:
    shares = list(seen["weights"].items())[:SHOWN_EXPERTS]
    return Text.assemble(("weights  ", "bold"), ", ".join(f"{name} {share:.0%}" for name, share in shares) or "none yet")


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def trouble(name: str, error: Exception) -> RenderableType:
    return Panel(Text(f"The server does not answer ({type(error).__name__}: {error}). Trying again."[:300], style="bold red"),
                 title=f"adaptcache: the fleet {name}", border_style="red")


# -- the command

def main(url: str, name: str, *, once: bool = False, as_json: bool = False, console: Console | None = None) -> int:
    """Show the fleet until ^C, or `once`. The exit code: 1 when the server did not answer a single look that was asked for."""
    console = console or Console()
    fleets = Fleets(url, name)
    try:
        if once or as_json:
            return _lines(fleets, console, once, as_json)
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                try:
                    live.update(page(fleets.look()), refresh=True)
                except Trouble as error:
                    live.update(trouble(name, error), refresh=True)
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        return 0
    finally:
        fleets.close()


def _lines(fleets: Fleets, console: Console, once: bool, as_json: bool) -> int:
    while True:
        try:
            seen = fleets.look()
            if as_json:
                print(json.dumps(seen), flush=True)
            else:
                console.print(page(seen))
        except Trouble as error:
            if once:
                Console(stderr=True).print(trouble(fleets.names.name, error))
                return 1
            print(json.dumps({"name": fleets.names.name, "error": f"{type(error).__name__}: {error}"}), flush=True)
        if once:
            return 0
        time.sleep(PAUSE)

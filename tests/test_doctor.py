"""The doctor: workloads with a known answer, where it must find it, and one where nothing is wrong.

The workloads go through a live cache; the statistics are checked beside on logs that are made by hand.
"""
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from adaptcache import Cache, Learned, _core
from adaptcache.cli import adaptcache
from adaptcache.doctor import Diagnosis, Log, diagnose, hindsight, read
from adaptcache.errors import LogError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Service:
    """A cache with a log of every key, and requests that load what is not held. Break-even: 10 s."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.clock, self.path = Clock(), path
        maxsize = options.pop("maxsize", None)
        only = options.pop("only", None)
        self.cache: Cache[Any, Any] = Cache(maxsize, timer=self.clock, expiry=Learned(**{
            "memory_price": 0.1, "predictors": ("table",), "learner": "manual", "seed": 1, **options}))
        if only is not None:
            assert self.cache.brain is not None
            self.cache.brain.only = only
        self.cache.log_decisions(path, sample=1, salt="s")

    def ask(self, key: Any, namespace: str, **more: Any) -> None:
        if self.cache.get(key) is None:
            self.cache.set(key, 1, **{"cost": 1.0, "namespace": namespace, **more})

    def diagnosis(self) -> Diagnosis:
        assert self.cache.decision_log is not None
        self.cache.decision_log.close()
        assert self.cache.decision_log.error is None
        return diagnose(read(self.path))


def run(service: Service, seconds: float, *streams: Any, seed: int = 5, after: float = 0.0) -> None:
    """Merge streams of (time, key, namespace), and serve them; then nothing for `after` seconds."""
    rng = random.Random(seed)
    events = sorted(event for stream in streams for event in stream(rng, seconds))
    for time, key, namespace in events:
        service.clock.now = time
        service.ask(key, namespace)
    service.cache.learn()
    service.clock.now = seconds + after
    service.cache.learn()


def steady(rng: random.Random, seconds: float) -> Any:
    """60 keys, each asked for every 2 s or so: always worth holding."""
    for key in range(60):
        at = rng.random()
        while at < seconds:
            yield at, f"steady {key}", "steady"
            at += rng.uniform(1.5, 2.5)


def once(rng: random.Random, seconds: float) -> Any:
    """Keys that nobody asks for again."""
    at = 0.0
    while at < seconds:
        yield at, f"once {at}", "once"
        at += rng.expovariate(20.0)


def periodic(rng: random.Random, seconds: float) -> Any:
    """80 keys, each asked for in pairs 4 s apart, and then not for a long time: hold 4 s and no longer."""
    for key in range(80):
        at = rng.uniform(0, 90)
        while at < seconds:
            yield at, f"pair {key}", "pairs"
            yield at + rng.uniform(3.5, 3.9), f"pair {key}", "pairs"
            at += rng.uniform(80, 100)


def kinds(diagnosis: Diagnosis) -> set[tuple[str, str | None]]:
    return {(finding.kind, finding.namespace) for finding in diagnosis.findings}


def space(diagnosis: Diagnosis, name: str) -> Any:
    return next(space for space in diagnosis.namespaces if space.name == repr(name))


# -- workloads with a known answer --------------------------------------------------------------------------

def test_nothing_is_said_where_nothing_is_wrong(tmp_path: Path) -> None:
    service = Service(tmp_path / "log")
    run(service, 120, steady)
    found = service.diagnosis()
    assert found.waits > 2000 and found.keys == 60
    assert found.findings == []
    assert space(found, "steady").verdict != "fixed is cheaper"
    assert found.paid < 1.2 * found.least


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_said_of_random_traffic_that_learning_cannot_improve(tmp_path: Path, seed: int) -> None:
    """Poisson traffic well within break-even: hold is right, and no fixed TTL does better."""
    def poisson(rng: random.Random, seconds: float) -> Any:
        for key in range(60):
            at = rng.expovariate(0.5)
            while at < seconds:
                yield at, f"p {key}", f"n{key % 2}"
                at += rng.expovariate(0.5)

    service = Service(tmp_path / "log")
    run(service, 120, poisson, seed=seed)
    assert service.diagnosis().findings == []


def test_a_namespace_that_is_never_asked_again_is_found(tmp_path: Path) -> None:
    service = Service(tmp_path / "log")
    run(service, 200, steady, once)
    found = service.diagnosis()
    assert ("never asked again", "'once'") in kinds(found)
    assert all(namespace != "'steady'" for _, namespace in kinds(found))
    finding = next(finding for finding in found.findings if finding.kind == "never asked again")
    assert "Do not store" in finding.change and finding.share == pytest.approx(space(found, "once").paid / found.paid)
    assert space(found, "once").dead == 1 and space(found, "once").asked == 0


def test_a_fixed_period_is_found_where_learning_was_not_allowed_to(tmp_path: Path) -> None:
    """Held to break-even by force (10 s), while 4 s is what the keys want."""
    service = Service(tmp_path / "log", only=_core.SLOT_MULTIPLE)
    run(service, 400, periodic, steady)
    found = service.diagnosis()
    assert kinds(found) == {("fixed is cheaper", "'pairs'")}
    pairs = space(found, "pairs")
    rule, ttl = pairs.rule.rstrip(")").split("(")
    assert rule in ("Idle", "Fixed") and 3.9 <= float(ttl) <= 8
    # By hand: a pair costs 3.7 + 10 of rent against 3.7 + ttl, at a rent of 0.1, and one miss a pair either way.
    assert pairs.saves.low > 0.05 and pairs.saves.low <= pairs.saves.value <= pairs.saves.high


def test_learning_that_pays_is_said_to_pay(tmp_path: Path) -> None:
    """Half of the keys of one namespace come back at once, half never: no single TTL suits both."""
    def mixed(rng: random.Random, seconds: float) -> Any:
        for key in range(80):
            at = rng.random()
            while at < seconds:
                yield at, f"m {key}", "mixed"
                at += rng.uniform(8.0, 9.0) if key % 2 else rng.uniform(40, 60)

    service = Service(tmp_path / "log", premature=1.0)
    run(service, 1500, mixed)
    found = service.diagnosis()
    assert space(found, "mixed").verdict == "learning is cheaper"
    assert found.findings == []


def test_a_guard_that_binds_is_found_with_its_price(tmp_path: Path) -> None:
    service = Service(tmp_path / "log", premature=0.001, window=8.0)
    run(service, 300, once)
    found = service.diagnosis()
    finding = next(finding for finding in found.findings if finding.kind == "guard")
    guard = found.guard
    assert guard.refused > 1000 and guard.misses == 0
    # Held from the refusal to the window's end: nearly all of what was paid.
    assert guard.net.low > 0.5 and guard.net.value == pytest.approx(guard.rent / found.paid)
    assert "premature from 0.001 to 0.01" in finding.change or "window" in finding.change
    assert found.bounds["guard"]["waits"] == guard.refused


def test_a_guard_that_does_not_hold_anything_back_is_not_blamed(tmp_path: Path) -> None:
    service = Service(tmp_path / "log", premature=1.0)
    run(service, 100, steady, once)
    found = service.diagnosis()
    assert found.guard.refused == 0 and all(finding.kind != "guard" for finding in found.findings)


def test_a_guard_that_saves_is_not_blamed(tmp_path: Path) -> None:
    """The expert would let go of everything at once, and everything comes back within the window."""
    service = Service(tmp_path / "log", premature=0.01, only=_core.SLOT_STATIC)
    run(service, 120, steady)
    found = service.diagnosis()
    assert found.guard.refused > 1000 and found.guard.net.high < 0
    assert all(finding.kind != "guard" for finding in found.findings)


def test_free_memory_is_found(tmp_path: Path) -> None:
    service = Service(tmp_path / "log", memory_price=0.0)
    run(service, 60, steady)
    found = service.diagnosis()
    assert kinds(found) == {("memory is free", None)}
    assert "memory_price is 0" in found.findings[0].says and "adaptcache.price" in found.findings[0].change


def test_costs_of_nothing_are_found(tmp_path: Path) -> None:
    service = Service(tmp_path / "log")
    for i in range(600):
        service.clock.now += 0.1
        service.ask(i % 90, "n", cost=0.0)
    assert ("costs nothing", None) in kinds(service.diagnosis())


def test_capacity_that_is_too_small_is_found(tmp_path: Path) -> None:
    service = Service(tmp_path / "log", maxsize=20)
    run(service, 120, steady)
    found = service.diagnosis()
    assert kinds(found) == {("capacity", None)} and found.findings[0].change == "Raise maxsize."
    assert found.findings[0].low > 0.05


def test_a_ceiling_that_is_too_low_is_found(tmp_path: Path) -> None:
    service = Service(tmp_path / "log", ceiling=1.0)
    run(service, 120, steady)
    assert kinds(service.diagnosis()) == {("ceiling", None)}


def test_a_constant_feature_is_found(tmp_path: Path) -> None:
    service = Service(tmp_path / "log")
    for i in range(400):
        service.clock.now += 0.05
        service.ask(i % 40, "n", features={"version": 7, "rows": i % 40})
    found = service.diagnosis()
    assert [finding.says for finding in found.findings if finding.kind == "constant feature"] == [
        f"The feature 'version' was 7 in every one of {found.waits:,} waits: a model can learn nothing from it."]


def test_few_keys_are_no_ground_for_advice(tmp_path: Path) -> None:
    """The same never-asked-again keys, but hardly any of them; and many waits of three keys."""
    def little(rng: random.Random, seconds: float) -> Any:
        for key in range(25):
            yield 4.0 * key, f"once {key}", "once"
        for key in range(3):
            for i in range(200):
                yield 20.0 * i + key, f"seldom {key}", "seldom"

    service = Service(tmp_path / "log", premature=0.0, window=9.0)
    run(service, 4000, little)
    found = service.diagnosis()
    assert found.findings == []
    assert {space.verdict for space in found.namespaces} == {"too few to say"}


# -- the statistics -----------------------------------------------------------------------------------------

def made(tmp_path: Path, waits: list[dict[str, Any]], name: str = "made") -> Log:
    """A log with these waits; what is not given is that of a value held until it was asked for."""
    path = tmp_path / name
    with path.open("w") as file:
        print(json.dumps({"adaptcache": "decisions", "version": 1, "run": "r"}), file=file)
        for number, given in enumerate(waits):
            wait = {"id": number, "time": 0.0, "key": "k", "namespace": None, "accesses": 1, "size": 1.0, "cost": 1.0, "price": 0.1,
                    "breakeven": 10.0, "window": 2.5, "ceiling": None, "let_go": None, "refused": None, "gone": None,
                    "bound": "mixture", "outcome": "asked", "found": True, "premature": False, "seen": 1.0, **given}
            left = wait["seen"] if wait["gone"] is None else wait["gone"]
            asked = wait["outcome"] == "asked"
            wait |= {"rent": 0.1 * left, "miss": 0.0 if wait["found"] or not asked else wait["cost"],
                     "spared": 0.1 * (wait["seen"] - left), "least": min(0.1 * wait["seen"], wait["cost"]) if asked else 0.0}
            print(json.dumps(wait), file=file)
    return read(path)


def test_fixed_ttls_are_priced_as_by_hand(tmp_path: Path) -> None:
    log = made(tmp_path, [
        {"time": 0.0, "seen": 2.0}, {"time": 2.0, "seen": 4.0}, {"time": 6.0, "seen": 80.0, "outcome": "never", "gone": 1.0},
        {"time": 1.0, "key": "other", "seen": 3.0, "outcome": "overwritten"},
    ])
    rows = np.arange(len(log))
    tried = np.array([0.0, 3.0, 5.0])
    assert log.time.tolist() == [0, 1, 2, 6]
    idle = hindsight._idle(log, rows, tried)
    fixed = hindsight._fixed(log, rows, tried)
    #                TTL 0  3 from access      5
    assert idle.tolist() == [[1.0, pytest.approx(0.2), pytest.approx(0.2)], [0.0, pytest.approx(0.3), pytest.approx(0.3)],
                             [1.0, pytest.approx(1.3), pytest.approx(0.4)], [0.0, pytest.approx(0.3), pytest.approx(0.5)]]
    # From the store: with 3 s, one second is left of it at 2, then a miss stores anew at 6; with 5 s, three are left at 2.
    assert fixed.tolist() == [[1.0, pytest.approx(0.2), pytest.approx(0.2)], [0.0, pytest.approx(0.3), pytest.approx(0.3)],
                              [1.0, pytest.approx(1.1), pytest.approx(1.3)], [0.0, pytest.approx(0.3), pytest.approx(0.5)]]
    assert hindsight.by_key(log, rows, np.ones(4)).tolist() == [3, 1]


def test_capacity_would_have_ended_a_ttl_too(tmp_path: Path) -> None:
    log = made(tmp_path, [{"gone": 1.0, "bound": "capacity", "seen": 4.0, "found": False}])
    for costs in (hindsight._idle, hindsight._fixed):
        assert costs(log, np.arange(1), np.array([0.0, 0.5, 3.0])).tolist() == [[1.0, pytest.approx(1.05), pytest.approx(1.1)]]


def test_lost_requests_of_a_rule_are_counted(tmp_path: Path) -> None:
    log = made(tmp_path, [{"time": 10.0 * at, "seen": seen} for at, seen in enumerate((0.5, 1.5, 2.5, 9.0))])
    rule = hindsight.Rule("Idle", 1.0, np.zeros(1))
    assert hindsight.losses(log, np.arange(4), rule) == pytest.approx(2 / 3)


def test_interval_covers_what_is_true() -> None:
    """19 of 20 times about: keys differ, and the share of the whole is what is estimated."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        whole = rng.exponential(1.0, 60)
        part = whole * rng.normal(0.1, 0.3, 60)
        found = hindsight.bootstrap(part, whole)
        inside += found.low <= 0.1 <= found.high
    assert 180 <= inside <= 199


def test_hindsight_does_not_flatter_itself() -> None:
    """Twenty rules that are all as good as what was paid: the best of them in hindsight is no better."""
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        paid = rng.exponential(1.0, 80)
        rules = [hindsight.Rule("Idle", float(ttl), paid * rng.lognormal(-0.08, 0.4, 80)) for ttl in range(20)]
        assert hindsight.best(rules).cost.sum() < paid.sum()
        wrong += hindsight.against(paid, rules, 0.95).low > 0.05
    assert wrong <= 3


# -- files that are not as they should be -------------------------------------------------------------------

@pytest.fixture
def log(tmp_path: Path) -> Path:
    service = Service(tmp_path / "log")
    run(service, 15, steady, once, after=200)
    service.diagnosis()
    return tmp_path / "log"


def doctor(*words: Any) -> Any:
    return CliRunner().invoke(adaptcache, ["doctor", *map(str, words)])


def test_a_last_line_that_was_cut_off_is_mentioned(log: Path) -> None:
    whole = len(read(log))
    data = log.read_bytes()
    for cut in (1, 10, 60):
        log.write_bytes(data[:-cut])
        found = read(log)
        assert len(found) == whole
        lines = data.count(b"\n")
        assert found.notes == ([f"{log}:{lines}: the last line was cut off; it is left out"] if cut > 1 else [])
    assert doctor(log).exit_code == 0 and "cut off" in doctor(log).output


@pytest.mark.parametrize(("number", "text", "says"), [
    (1, "{}", "is no log of decisions"), (1, "time,key", "is no log of decisions"), (1, "\x00\xff", "is no log of decisions"),
    (1, '{"adaptcache":"decisions","version":99}', "version 99"), (3, "{broken", "is damaged"), (3, "[1]", "is damaged"), (3, "", "is damaged"),
    (3, '{"id":1}', "field 'time' is missing"), (3, '{"state":5}', "field 'state'"),
])
def test_a_damaged_or_foreign_log_is_refused_with_file_and_line(log: Path, number: int, text: str, says: str) -> None:
    lines = log.read_text().splitlines()
    lines[number - 1] = text
    log.write_text("\n".join(lines) + "\n", encoding="latin-1")
    with pytest.raises(LogError, match=f"{log}:{number}: .*{says}"):
        read(log)
    result = doctor(log)
    assert result.exit_code == 1 and f"{log}:{number}: " in result.output and says in result.output


@pytest.mark.parametrize(("field", "value"), [
    ("seen", None), ("seen", -1), ("seen", "1"), ("seen", True), ("rent", 1e999), ("gone", "soon"), ("outcome", "lost"), ("bound", 3),
    ("key", 5), ("namespace", 5), ("premature", 1), ("found", "yes"), ("features", []), ("features", {"a": "b"}),
])
def test_every_field_is_checked(log: Path, field: str, value: Any) -> None:
    lines = log.read_text().splitlines()
    wait = json.loads(lines[5])
    wait[field] = value
    lines[5] = json.dumps(wait)
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogError, match=f"{log}:6: .*'{field}'"):
        read(log)


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    assert doctor(tmp_path / "absent").exit_code == 1 and "absent" in doctor(tmp_path / "absent").output
    (tmp_path / "empty").touch()
    assert doctor(tmp_path / "empty").exit_code == 1 and "is empty" in doctor(tmp_path / "empty").output
    assert doctor(tmp_path).exit_code == 2


def test_a_log_without_decisions_says_so(tmp_path: Path) -> None:
    Service(tmp_path / "log").diagnosis()
    result = doctor(tmp_path / "log")
    assert result.exit_code == 0 and "holds no decision yet" in result.output
    assert json.loads(doctor(tmp_path / "log", "--json").output)["findings"] == []


def test_the_older_file_is_read_too(log: Path) -> None:
    whole = read(log)
    lines = log.read_text().splitlines(keepends=True)
    half = len(lines) // 2
    log.with_name("log.1").write_text("".join(lines[:half]))
    log.write_text("".join([lines[0], *lines[half:]]))
    both = read(log)
    assert len(both.headers) == 2 and both.time.tolist() == whole.time.tolist()
    assert sorted(both.keys) == sorted(whole.keys), "keys of one run are the same in both files"


# -- the command --------------------------------------------------------------------------------------------

def test_the_report_names_what_is_found(log: Path) -> None:
    result = doctor(log)
    assert result.exit_code == 0
    for part in ("What decided", "Worst decisions", "What to change", "held for nothing", "'once'", "never asked again"):
        assert part in result.output, part


def test_json_holds_the_same(log: Path) -> None:
    result = doctor(log, "--json", "--worst", "3")
    got = json.loads(result.output)
    found = diagnose(read(log), worst=3)
    assert got["waits"] == found.waits and len(got["worst"]) == 3
    assert [finding["kind"] for finding in got["findings"]] == [finding.kind for finding in found.findings]
    regrets = [worst["regret"] for worst in got["worst"]]
    assert regrets == sorted(regrets, reverse=True)
    assert got["paid"] == pytest.approx(got["rent"] + got["misses"])


def test_markup_in_labels_is_shown_as_it_is(tmp_path: Path) -> None:
    service = Service(tmp_path / "log")
    run(service, 20, lambda rng, seconds: [(at, key, "[bold]n[/x]") for at, key, _ in once(rng, seconds)], after=200)
    service.diagnosis()
    result = doctor(tmp_path / "log")
    assert result.exit_code == 0 and "[bold]n[/x]" in result.output


def test_a_simulated_run_can_be_examined(tmp_path: Path) -> None:
    path = tmp_path / "log"
    result = CliRunner().invoke(adaptcache, ["simulate", "synthetic:pipeline", "--limit", "4000", "--expiry", "learned", "--log", str(path)])
    assert result.exit_code == 0, result.output
    assert read(path).headers[0]["trace"].startswith("synthetic:pipeline") or read(path).headers[0]["trace"] == "pipeline"
    assert doctor(path).exit_code == 0
    for wrong in (["--policy", "lru"], ["--expiry", "break-even"], ["--expiry", "learned", "--memory-price", "1x,2x"]):
        refused = CliRunner().invoke(adaptcache, ["simulate", "synthetic:pipeline", "--limit", "400", "--log", str(path), *wrong])
        assert refused.exit_code == 2 and "--log" in refused.output

"""What the synthetic workloads promise. Statistics are measured on the trace alone, as a cache would see it."""
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from adaptcache.simulate import synthetic
from adaptcache.simulate.pipeline import PipelineParameters, workload
from adaptcache.simulate.pipeline.catalogue import CALLERS, FUNCTIONS
from adaptcache.simulate.trace import Trace

DAY = 86_400.0
DASHBOARD, NOTEBOOK, BATCH, APP = range(len(CALLERS))


@pytest.fixture(scope="module")
def trace() -> Trace:
    return synthetic.generate("pipeline", seed=3, requests=120_000)


def same(a: Trace, b: Trace) -> bool:
    columns = ("key", "time", "size", "version", "namespace", "cost")
    return all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns) and all(
        np.array_equal(a.features[name], b.features[name]) for name in a.features
    )


def next_gap(trace: Trace) -> np.ndarray:
    """Seconds from each request to the next one of its key; inf for the last."""
    order = np.lexsort((np.arange(len(trace.key)), trace.key))
    gap = np.full(len(trace.key), np.inf)
    follows = trace.key[order][1:] == trace.key[order][:-1]
    gap[order[:-1][follows]] = np.diff(trace.time[order])[follows]
    return gap


def firsts(trace: Trace) -> np.ndarray:
    """The row of each key's first request."""
    return np.unique(trace.key, return_index=True)[1]


def test_same_seed_gives_the_same_trace_and_another_seed_another():
    one, two, other = (synthetic.generate("pipeline", seed=s, requests=5_000) for s in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)


@pytest.mark.parametrize("requests", [1_000, 4_321, 50_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_trace_has_as_many_requests_as_asked_and_well_formed_columns(requests, seed):
    trace = synthetic.generate("pipeline", seed=seed, requests=requests)
    assert len(trace.key) == requests
    assert (trace.key.dtype, trace.version.dtype, trace.namespace.dtype) == (np.uint32,) * 3
    assert np.array_equal(np.unique(trace.key), np.arange(trace.n_keys))
    assert np.array_equal(trace.key[np.sort(firsts(trace))], np.arange(trace.n_keys)), "dense by first appearance"
    assert trace.time[0] == 0 and (np.diff(trace.time) >= 0).all()
    assert trace.time[-1] < PipelineParameters().seconds
    assert (trace.size > 0).all() and (trace.cost > 0).all()
    assert trace.cost.mean() == pytest.approx(PipelineParameters().cost)
    assert 1 <= len(trace.features) <= 8
    assert all(c.dtype == np.float32 or np.issubdtype(c.dtype, np.integer) for c in trace.features.values())
    assert all(len(c) == requests and np.isfinite(c).all() for c in trace.features.values())


def test_sizes_belong_to_keys(trace):
    assert np.array_equal(trace.size, trace.size[firsts(trace)][trace.key])


def test_versions_never_fall_and_rise_on_the_schedule_of_their_function(trace):
    order = np.lexsort((np.arange(len(trace.key)), trace.key))
    step = np.diff(trace.version[order].astype(np.int64))[trace.key[order][1:] == trace.key[order][:-1]]
    assert (step >= 0).all() and (step > 0).any()

    made = workload(PipelineParameters(requests=20_000), seed=3)
    name = np.array([f.name for f in FUNCTIONS])[made.asked.function]
    profile = name == "customer_profile"
    refresh = next(f.refresh for f in FUNCTIONS if f.name == "customer_profile")
    changes = np.unique(made.version[profile])
    starts = np.array([made.asked.time[profile & (made.version == v)].min() for v in changes[1:]])
    # The first look-up after a change comes soon after it, and changes are one refresh apart.
    assert np.allclose(np.diff(starts), refresh, rtol=0.02)


def test_data_of_past_days_no_longer_changes():
    made = workload(PipelineParameters(requests=50_000, explored=0.5), seed=1)
    past = made.columns["age_days"] >= 7
    versions = {(k, v) for k, v in zip(made.key[past].tolist(), made.version[past].tolist(), strict=True)}
    assert len(versions) == len(np.unique(made.key[past])) < past.sum()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_share_of_queries_asked_once_is_as_asked(share):
    trace = synthetic.generate("pipeline", seed=5, requests=40_000, once=share, explored=0.05)
    often = np.bincount(trace.key)[trace.key]
    notebook = trace.features["caller"] == NOTEBOOK
    assert (often[notebook] == 1).sum() / len(trace.key) == pytest.approx(share, abs=0.002)
    assert (often[notebook] > 1).sum() / len(trace.key) == pytest.approx(0.05, abs=0.002)


def test_dashboards_are_polled_on_a_beat():
    """While a dashboard is open, the gaps of a key are one period long, but for the jitter."""
    alone = synthetic.generate("pipeline", seed=3, requests=40_000, jitter=0.02, sittings=1.0, shift_at=1)
    rows = np.flatnonzero(alone.features["caller"] == DASHBOARD)
    gap, key = next_gap(alone)[rows], alone.key[rows]
    off_beat = []
    for k in np.unique(key[np.bincount(key)[key] >= 12]):
        gaps = gap[key == k]
        period = np.median(gaps)
        if period < 1_200:  # slower ones are rather opened than polled
            off_beat.append(np.median(np.abs(gaps / period - 1)))
    assert len(off_beat) > 100
    # A few boards are open twice at a time and so show two beats.
    assert np.mean(np.array(off_beat) < 0.04) > 0.85


def test_panels_of_a_dashboard_are_asked_for_together(trace):
    dashboard = trace.features["caller"] == DASHBOARD
    times = trace.time[dashboard]
    near = np.diff(times) < 0.2
    assert near.mean() > 0.3


def test_dashboards_keep_the_working_hours_of_their_tenant(trace):
    dashboard = trace.features["caller"] == DASHBOARD
    early = dashboard & (trace.time < 2 * DAY - DAY / 2)
    quiet = [
        (np.bincount(trace.features["hour"][early & (trace.features["tenant"] == t)].astype(int), minlength=24) == 0).sum()
        for t in range(12)
    ]
    assert np.median(quiet) >= 8


def test_scans_pass_over_many_keys_every_night(trace):
    batch = trace.features["caller"] == BATCH
    assert batch.mean() == pytest.approx(PipelineParameters().scan, abs=0.002)
    assert set(np.unique(trace.features["hour"][batch].astype(int))) <= {1, 2, 3, 4}
    gap = next_gap(trace)[batch]
    nightly = np.abs(gap - DAY) < 1_800
    minutes = gap < 1_800
    assert nightly.mean() > 0.1, "some keys come back the next night"
    assert minutes.mean() > 0.1, "some within minutes"
    assert np.isinf(gap).mean() > 0.3, "and dated ones never"


def test_flash_crowds_are_sudden_short_and_on_few_keys():
    made = workload(PipelineParameters(requests=40_000, crowd=0.2, crowds=3), seed=2)
    report = np.array([f.name for f in FUNCTIONS])[made.asked.function] == "published_report"
    assert report.mean() == pytest.approx(0.2, abs=0.001)
    assert len(np.unique(made.key[report])) <= 15
    crowd = made.asked.item[report] // 5
    for c in np.unique(crowd):
        times = made.asked.time[report][crowd == c]
        assert np.quantile(times - times[0], 0.9) < 3 * 20 * 60


def groups(trace: Trace, rows: np.ndarray) -> np.ndarray:
    """What siblings share: function, caller, granularity and tenant."""
    f = trace.features
    return ((trace.namespace[rows].astype(int) * 4 + f["caller"][rows]) * 4 + f["granularity"][rows]) * 64 + f["tenant"][rows]


def predicted(label: np.ndarray, group: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """Share of re-use among the siblings seen so far, with one pseudo-count of the overall share."""
    overall = label[learn].mean()
    n = int(group.max()) + 1
    seen, reused = np.bincount(group[learn], minlength=n), np.bincount(group[learn], label[learn], minlength=n)
    return ((reused + overall) / (seen + 1))[group]


def brier_gain(trace: Trace, start: float, end: float, learn_until: float, *, shuffle: bool = False,
               caller: int | None = None) -> float:
    """How much of the squared error about re-use within 30 minutes the siblings explain, for NEW keys only."""
    rows = np.sort(firsts(trace))
    rows = rows[(trace.time[rows] >= start) & (trace.time[rows] < end)]
    if caller is not None:
        rows = rows[trace.features["caller"][rows] == caller]
    label = (next_gap(trace)[rows] < 1_800).astype(float)
    group = groups(trace, rows)
    if shuffle:
        group = np.random.default_rng(0).permutation(group)
    learn = trace.time[rows] < learn_until
    guess = predicted(label, group, learn)
    test = ~learn
    return float(1 - ((guess - label)[test] ** 2).mean() / ((label[learn].mean() - label)[test] ** 2).mean())


def test_a_new_key_behaves_like_its_siblings(trace):
    """Features alone explain a good part of whether a key never seen before is asked again soon."""
    assert brier_gain(trace, 0, 2 * DAY - DAY / 2, DAY) > 0.4
    assert brier_gain(trace, 0, 2 * DAY - DAY / 2, DAY, shuffle=True) < 0.02


@pytest.mark.parametrize("caller", [NOTEBOOK, BATCH])
def test_unlike_siblings_tell_nothing(caller):
    """`unlike` goes from families that all keep their habits to families that have none."""
    span = {"start": 0, "end": 4 * DAY, "learn_until": 2 * DAY, "caller": caller}
    gains = [brier_gain(synthetic.generate("pipeline", seed=8, unlike=u, explored=0.15, shift_at=0), **span) for u in (0, 0.5, 1)]
    assert gains[0] > gains[1] + 0.1 > gains[2] + 0.1
    assert gains[0] > 0.5 and gains[2] < 0.05


def test_the_shift_turns_habits_round():
    """What was learnt before the shift misleads after it, until it is learnt anew; without a shift it holds."""
    shifted = synthetic.generate("pipeline", seed=4, requests=120_000)
    steady = synthetic.generate("pipeline", seed=4, requests=120_000, shift_at=0)
    across = {"start": DAY, "end": 3 * DAY, "learn_until": 2 * DAY}
    assert brier_gain(steady, **across) > 0.4
    assert brier_gain(shifted, **across) < brier_gain(steady, **across) - 0.2
    assert brier_gain(shifted, 2 * DAY, 4 * DAY, 3 * DAY) > 0.4


def test_dashboard_functions_go_cold_and_others_wake_at_the_shift(trace):
    dashboard = trace.features["caller"] == DASHBOARD
    before = set(np.unique(trace.namespace[dashboard & (trace.time < 1.9 * DAY)]))
    after = set(np.unique(trace.namespace[dashboard & (trace.time > 2.1 * DAY)]))
    assert before - after and after - before


def test_without_contrast_tenants_keep_the_same_pace():
    def spread(contrast: float) -> float:
        t = synthetic.generate("pipeline", seed=6, requests=60_000, contrast=contrast, shift_at=0, days=2)
        rows = t.features["caller"] == DASHBOARD
        gap = next_gap(t)
        medians = [np.median(gap[rows & (t.features["tenant"] == k) & (gap < 7_200)]) for k in range(12)]
        return max(medians) / min(medians)

    assert spread(8.0) > 2 * spread(1.0)


def test_iterating_gives_the_requests_of_the_trace():
    made = workload(PipelineParameters(requests=3_000), seed=9)
    trace, requests = made.trace(), list(made)
    assert len(requests) == len(made) == 3_000
    assert [r.key for r in requests] == trace.key.tolist()
    assert np.allclose([r.time - requests[0].time for r in requests], trace.time)
    keys = {(r.function, *r.arguments.values()) for r in requests}
    assert len(keys) == trace.n_keys, "function and arguments are the key"
    assert all(set(r.features) == set(trace.features) for r in requests)


def test_parameters_can_stand_in_the_name():
    by_name = synthetic.generate("synthetic:pipeline?requests=5000&tenants=8&seed=7")
    by_keyword = synthetic.generate("pipeline", seed=7, requests=5_000, tenants=8)
    assert same(by_name, by_keyword)
    assert by_name.name == by_keyword.name == "synthetic:pipeline?requests=5000&tenants=8&seed=7"
    assert same(by_name, synthetic.generate(by_name.name)), "a trace's name makes it again"


OUTSIDE = [(f.name, bad) for f in fields(PipelineParameters)
           for bad in (f.metadata["low"] - 1, f.metadata["high"] * 2 + 1, float("nan"), "many", True)]


@pytest.mark.parametrize(("name", "bad"), OUTSIDE)
def test_bad_value_is_refused_with_the_name_of_its_parameter(name, bad):
    with pytest.raises(ValueError, match=rf"^{name}=.*(accepted is|is not a)"):
        PipelineParameters(**{name: bad})


# Accepted, but too long a run for a test: only their validation is tried.
LONG = {("requests", "high"), ("days", "high"), ("entities", "high")}
ENDS = [(f, end) for f in fields(PipelineParameters) for end in ("low", "high")]


@pytest.mark.parametrize(("name", "end"), sorted(LONG))
def test_the_ends_that_take_long_are_accepted(name, end):
    limits = {f.name: f.metadata for f in fields(PipelineParameters)}
    assert getattr(PipelineParameters(**{name: limits[name][end]}), name) == limits[name][end]


@pytest.mark.parametrize(("f", "end"), [each for each in ENDS if (each[0].name, each[1]) not in LONG],
                         ids=lambda each: getattr(each, "name", each))
def test_both_ends_of_every_range_work(f, end):
    value = f.metadata[end]
    small = {"requests": 2_000, "once": 0.0, "explored": 0.0, "scan": 0.05, "crowd": 0.05, "lookup": 0.0}
    assert len(synthetic.generate("pipeline", **{**small, f.name: value}).key) == {**small, f.name: value}["requests"]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: synthetic.generate("nothing"), "unknown synthetic workload 'nothing'.*pipeline"),
    (lambda: synthetic.generate("pipeline", request=5), "no parameter request; it has: requests"),
    (lambda: synthetic.generate("pipeline?requests"), "name=value"),
    (lambda: synthetic.generate("pipeline?days=2&days=3"), "twice"),
    (lambda: synthetic.generate("pipeline?days=2", days=3), "days is given twice"),
    (lambda: synthetic.generate("pipeline", seed=-1), "seed=-1"),
    (lambda: PipelineParameters(once=0.6, scan=0.6), "once .* accepted is 0 to 1"),
])
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shares_that_leave_dashboards_nothing_still_give_every_request():
    shares = {"once": 0.15, "explored": 0.1, "scan": 0.3, "crowd": 0.25, "lookup": 0.2}
    trace = synthetic.generate("pipeline", requests=1_003, **shares)
    assert len(trace.key) == 1_003
    assert not (trace.features["caller"] == DASHBOARD).sum() > 3


def test_every_parameter_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "pipeline.md").read_text()
    for f in fields(PipelineParameters):
        assert f"| `{f.name}` |" in page, f.name


def test_names_lists_the_generators():
    assert "pipeline" in synthetic.names()

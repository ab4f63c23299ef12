"""The database behind the demo: SQLite in memory, filled with a year and more of sales events.

It answers the functions that the pipeline workload calls, by real SQL over real rows, and knows
nothing of caches. A query sees only what had been loaded when its source last changed, so a value
really is another one after that.
"""
from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

import numpy as np

from ..simulate.pipeline import Request

REGIONS = 8
CUSTOMERS = 400
MINUTES = 1_440
HISTORY = 480  # days of events before the workload begins: the longest horizon, asked for some months back
BUCKET = {"minute": 1, "hour": 60, "day": MINUTES, "week": 7 * MINUTES}

# Every query reads one tenant's events of some days, those already loaded, of all regions but one.
_ROWS = """FROM events WHERE tenant = :tenant AND day BETWEEN :first AND :last
           AND day * 1440 + minute < :loaded AND region <> :region"""
_WHEN = "(day * 1440 + minute) / :bucket"
QUERIES = {
    "revenue_series": f"SELECT {_WHEN} AS t, count(*), sum(amount) {_ROWS} GROUP BY t",
    "orders_by_region": f"SELECT region, {_WHEN} AS t, count(*) {_ROWS} GROUP BY region, t",
    "conversion_funnel": f"""SELECT {_WHEN} AS t, count(*), sum(amount > 20), sum(amount > 40), sum(amount > 80)
        {_ROWS} GROUP BY t""",
    "latency_percentiles": f"""SELECT part, max(latency) FROM
        (SELECT latency, ntile(20) OVER (ORDER BY latency) AS part {_ROWS}) GROUP BY part""",
    "stock_levels": f"SELECT region, sum(amount > 30) - sum(amount <= 30), max(minute) {_ROWS} GROUP BY region",
    "active_users": f"SELECT {_WHEN} AS t, count(DISTINCT customer) {_ROWS} GROUP BY t",
    "cohort_retention": f"""SELECT start, count(*), avg(days) FROM
        (SELECT customer, min(day) AS start, count(DISTINCT day) AS days {_ROWS} GROUP BY customer)
        GROUP BY start""",
    "basket_analysis": f"SELECT customer % 40 AS segment, region, avg(amount), count(*) {_ROWS} GROUP BY 1, 2",
    "event_search": f"SELECT day, minute, customer, latency {_ROWS} ORDER BY latency DESC LIMIT 200",
    "anomaly_probe": f"""SELECT {_WHEN} AS t, avg(latency), avg(latency * latency) - avg(latency) * avg(latency)
        {_ROWS} GROUP BY t""",
    "feature_extract": f"""SELECT region, count(*), avg(amount), max(amount), avg(latency)
        {_ROWS} AND customer = :customer GROUP BY region""",
    "ledger_reconcile": f"SELECT day, sum(amount), count(*) {_ROWS} AND customer = :customer GROUP BY day",
    "daily_export": f"SELECT day, minute, amount {_ROWS} AND customer = :customer",
    "customer_profile": f"SELECT count(*), sum(amount), max(day) {_ROWS} AND customer = :customer",
    "published_report": f"SELECT {_WHEN} AS t, region, sum(amount), avg(latency) {_ROWS} GROUP BY t, region",
}


class Database:
    """`answer(request)` runs the query of a request and returns its result, encoded as a service would send it."""

    def __init__(self, tenants: int, days: int, *, rows_per_day: int = 240, seed: int = 0,
                 progress: Callable[[float], None] = lambda part: None) -> None:
        self.rows = 0
        self._connection = sqlite3.connect(":memory:")
        self._connection.execute(
            """CREATE TABLE events (tenant INTEGER, day INTEGER, minute INTEGER, region INTEGER, customer INTEGER,
               amount REAL, latency REAL, PRIMARY KEY (tenant, day, minute)) WITHOUT ROWID"""
        )
        rng = np.random.default_rng(seed)
        for tenant in range(tenants):
            # In the order of the primary key: appending to the tree is much faster than searching in it.
            for day in range(-HISTORY, days):
                self._fill(rng, tenant, day, rows_per_day)
            progress((tenant + 1) / tenants)
        self._connection.commit()

    def _fill(self, rng: np.random.Generator, tenant: int, day: int, rows: int) -> None:
        columns = (
            np.sort(rng.choice(MINUTES, rows, replace=False)),
            rng.integers(0, REGIONS, rows),
            (CUSTOMERS * rng.random(rows) ** 2).astype(int),
            rng.gamma(2.0, 20.0, rows).round(2),
            rng.lognormal(3.0, 1.0, rows).round(1),
        )
        events = zip([tenant] * rows, [day] * rows, *(column.tolist() for column in columns), strict=True)
        self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", events)
        self.rows += rows

    def answer(self, request: Request) -> bytes:
        """The result of the request's query, as JSON."""
        asked = request.arguments
        # Without a day: the latest that had been loaded by then.
        last = int(request.changed // 86_400) if asked["as_of"] is None else asked["as_of"]
        rows = self._connection.execute(QUERIES[request.function], {
            "tenant": asked["tenant"],
            "first": last - asked["horizon_days"] + 1,
            "last": last,
            "loaded": request.changed // 60,
            "region": asked["item"] % REGIONS,
            "customer": asked["item"] % CUSTOMERS,
            "bucket": BUCKET[asked["granularity"]],
        }).fetchall()
        return json.dumps({"loaded": request.version, "rows": rows}).encode()

    def close(self) -> None:
        """Gives the memory back."""
        self._connection.close()

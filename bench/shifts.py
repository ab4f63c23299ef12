"""What a sudden change of workload costs: one trace after another one, and the points of hit ratio that adaptive and LRU are short of
the best policy in each stretch of five cache sizes after the change.

    python bench/shifts.py                  needs the recorded traces (ADAPTCACHE_TRACES)

Every policy has gone through the first trace. Prints markdown.
"""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from adaptcache import _core, policies
from adaptcache.simulate import read

TRACES = Path(os.environ.get("ADAPTCACHE_TRACES", "../shared/traces"))
PAIRS = [("synth_shift", "arc_p3"), ("orm_busy", "scarab_recs"), ("mathoverflow_users", "cloudphysics_w106"), ("synth_kv_ttl", "arc_oltp")]
BEFORE, STRETCHES = 300_000, 4


def main() -> None:
    print("| from | to | entries | " + " | ".join(f"to {5 * n + 5}" for n in range(STRETCHES)) + " |\n|---|---|---:|" + "---:|" * STRETCHES)
    for pair in PAIRS:
        for first, then in (pair, pair[::-1]):
            before, after = read(TRACES / f"{first}.npz", limit=BEFORE), read(TRACES / f"{then}.npz")
            key = np.concatenate([before.key, after.key + np.uint32(before.n_keys)])
            for capacity in (200, 2000):
                if 5 * STRETCHES * capacity > len(after):
                    continue
                ratios = np.empty((len(policies()), STRETCHES))
                for row, policy in enumerate(policies()):
                    replay = _core.PolicyReplay(policy, capacity, before.n_keys + after.n_keys)
                    replay.run(key, None, None, None, 0, len(before))
                    for n in range(STRETCHES):
                        hits, at = replay.hits, len(before) + 5 * capacity * n
                        replay.run(key, None, None, None, at, at + 5 * capacity)
                        ratios[row, n] = (replay.hits - hits) / (5 * capacity)
                short = 100 * (ratios.max(axis=0) - ratios)
                cells = (f"{short[policies().index('adaptive'), n]:.1f} (LRU {short[policies().index('lru'), n]:.1f})" for n in range(STRETCHES))
                print(f"| {first} | {then} | {capacity:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

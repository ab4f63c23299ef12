# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Wrappers through which the tests reach what the learner computes; built with ADAPTCACHE_TESTS=1 only.

Each function is one call of the core's own. Nothing here computes.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from attic cimport (Attic as c_Attic, attic_bytes, attic_drop, attic_find, attic_free, attic_init, attic_put, attic_sound,
                    dithered as c_dithered, level as c_level, memoir, memoir_cells, memoir_over, memoir_record)
from bins cimport NB as _NB, bin_of as c_bin_of, edge as c_edge
from engine cimport Engine, engine_event, engine_free, engine_init, engine_prior, engine_step
from flat cimport FEATURES, GROUPS, Line, Tree, TreeNode, in_scope as c_in_scope, line_hazards as c_line_hazards, \
    tree_leaf as c_tree_leaf, within_reach as c_within_reach
from guard cimport Guard, guard_free, guard_hit, guard_init, guard_score
from hazard cimport Cell, Chain, HAZARDS, KeyCell, Outlook, WINDOW as _WINDOW, outlook as c_outlook
from stack cimport (BUCKETS, SIDES, SPAN, STAGES, Side, Stack, TERMS, side_learn, stack_init, stack_mix, stack_terms,
                    stage_of)
from hedge cimport EXPERTS, LEADER, Hedge, hedge_close, hedge_init
from record cimport Record
from ring cimport STORED, Touch

NB = _NB
WINDOW = _WINDOW

def edge(int j): return c_edge(j)
def bin_of(int64_t age): return c_bin_of(age)

cdef int cells(Cell* out, rows) except -1:
    for i, (p, q, n) in enumerate(rows):
        out[i].p, out[i].q, out[i].n = p, q, n
    return 0

def outlook(everyone, habit, habit2, namespace, leaf, key, line, int base, int j, int top, double start,
            double breakeven, int64_t window, stacked=None):
    """(values of the ten hazard experts, back, ratio). Cells as (p, q, n), NB of each; None = there is none.

    key: WINDOW of (p, q, n) from bin `base`; line, stacked: WINDOW hazards from `base`.
    """
    cdef Cell all_[_NB]
    cdef Cell habit_[_NB]
    cdef Cell habit2_[_NB]
    cdef Cell namespace_[_NB]
    cdef Cell leaf_[_NB]
    cdef KeyCell key_
    cdef float line_[_WINDOW]
    cdef float stacked_[_WINDOW]
    cdef Chain c
    cdef Outlook o
    memset(&c, 0, sizeof(c))
    cells(all_, everyone)
    cells(habit_, habit)
    cells(habit2_, habit2)
    c.everyone, c.habit, c.habit2 = all_, habit_, habit2_
    c.line_base = base
    if namespace is not None:
        cells(namespace_, namespace)
        c.namespace_ = namespace_
    if leaf is not None:
        cells(leaf_, leaf)
        c.leaf = leaf_
    if key is not None:
        key_.base = base
        for i, (p, q, n) in enumerate(key):
            key_.p[i], key_.q[i], key_.n[i] = <int>(p * 65535 + 0.5), <int>(q * 65535 + 0.5), n
        c.key = &key_
    if line is not None:
        for i, p in enumerate(line):
            line_[i] = p
        c.line = line_
    if stacked is not None:
        for i, p in enumerate(stacked):
            stacked_[i] = p
        c.stacked = stacked_
    o.hazards = NULL
    c_outlook(&c, &o, j, top, start, breakeven, window)
    return [o.value[e] for e in range(HAZARDS)], o.back, o.ratio

def ladder(double alpha, ratios):
    """The guard's rung after each protected request that found its entry; a ratio below 0 tempted nobody."""
    cdef Guard g
    out = []
    if guard_init(&g, alpha, False, 0) < 0:
        raise MemoryError
    for ratio in ratios:
        guard_hit(&g)
        guard_score(&g, ratio)
        out.append(g.rung)
    guard_free(&g)
    return out

def draws(uint64_t seed, int64_t hash, times):
    """(salt, serial) of the wait after each store of a key, which breaks even after 1e9 ns and is packed away 3e9 ns later."""
    cdef Engine g
    cdef Touch touch
    cdef uint32_t s
    out = []
    memset(&touch, 0, sizeof(Touch))
    touch.size, touch.cost = 1, 1
    if engine_init(&g, 16, 0, seed) < 0:
        raise MemoryError
    engine_prior(&g, <uint64_t>1 << LEADER)
    g.price = 1e-9
    for now in times:
        while engine_step(&g, now):
            pass
        s = engine_event(&g, hash, now, STORED, &touch)
        out.append((g.trackers[s].salt, g.trackers[s].serial))
    engine_free(&g)
    return out

def line_hazards(float[:, ::1] weight, float[::1] bias, float[::1] x, int base, int n):
    cdef Line m
    cdef float out[_WINDOW]
    for i in range(GROUPS):
        m.bias[i] = bias[i]
        for d in range(FEATURES):
            m.weight[i][d] = weight[i, d]
    c_line_hazards(&m, &x[0], out, base, n)
    return [out[i] for i in range(n)]

def in_scope(float[::1] x, float[::1] low, float[::1] high):
    return bool(c_in_scope(&x[0], &low[0], &high[0]))

def tree_leaf(int32_t[::1] feature, float[::1] threshold, uint32_t[::1] left, uint32_t[::1] right, float[::1] x):
    cdef Tree t
    t.n = <uint32_t>feature.shape[0]
    t.nodes = <TreeNode*>malloc(t.n * sizeof(TreeNode))
    if t.nodes is NULL:
        raise MemoryError
    for i in range(feature.shape[0]):
        t.nodes[i].feature, t.nodes[i].threshold = feature[i], threshold[i]
        t.nodes[i].left, t.nodes[i].right = left[i], right[i]
    try:
        return c_tree_leaf(&t, &x[0])
    finally:
        free(t.nodes)

def hedge(rounds, prior, double keep, double share, above=None):
    """The weights after each of `rounds`, a list of losses per expert; `above`: losses in the context above."""
    cdef Hedge h, up
    cdef double first[EXPERTS]
    memset(first, 0, sizeof(first))
    for e, p in enumerate(prior):
        first[e] = p
    hedge_init(&h, first)
    hedge_init(&up, first)
    for e, loss in enumerate(above or ()):
        up.loss[e] = loss
    out = []
    for losses in rounds:
        for e, loss in enumerate(losses):
            h.round_[e] = loss
        h.pending = 32
        hedge_close(&h, first, keep, share, NULL if above is None else &up)
        out.append([h.weight[e] for e in range(len(prior))])
    return out

def stack(everyone, habit, habit2, *, int k, int base, int bucket, namespace=None, key=None, sides=(), weight=None, bias=None):
    """(terms of bin `k`, mixed probability). sides: (p, n) or None each; weight, bias: as `publish_stack` takes them."""
    cdef Cell all_[_NB]
    cdef Cell habit_[_NB]
    cdef Cell habit2_[_NB]
    cdef Cell namespace_[_NB]
    cdef Side rows[SIDES][SPAN]
    cdef Side* at[SIDES]
    cdef KeyCell key_
    cdef Chain c
    cdef Stack s
    cdef double t[TERMS]
    memset(&c, 0, sizeof(c))
    memset(&key_, 0, sizeof(key_))
    memset(rows, 0, sizeof(rows))
    stack_init(&s)
    cells(all_, everyone)
    cells(habit_, habit)
    cells(habit2_, habit2)
    c.everyone, c.habit, c.habit2 = all_, habit_, habit2_
    if namespace is not None:
        cells(namespace_, namespace)
        c.namespace_ = namespace_
    if key is not None:
        key_.base = base
        for i, (p, q, n) in enumerate(key):
            key_.p[i], key_.q[i], key_.n[i] = <int>(p * 65535 + 0.5), <int>(q * 65535 + 0.5), n
        c.key = &key_
    for i in range(SIDES):
        at[i] = NULL
    for i, side in enumerate(sides):
        if side is not None:
            rows[i][k & (SPAN - 1)].p, rows[i][k & (SPAN - 1)].n = side
            at[i] = rows[i]
    if weight is not None:
        for b in range(BUCKETS):
            for g in range(STAGES):
                s.bias[b][g] = bias[b][g]
                for i in range(TERMS):
                    s.weight[b][g][i] = weight[b][g][i]
    stack_terms(&c, at, k, t)
    return [t[i] for i in range(TERMS)], stack_mix(&s, bucket, stage_of(k - base), t)

def side(outcomes):
    """(p, n) of a side cell after `outcomes`."""
    cdef Side cell
    memset(&cell, 0, sizeof(cell))
    for y in outcomes:
        side_learn(&cell, y)
    return cell.p, cell.n

def within_reach(const float[::1] x, const float[::1] low, const float[::1] high):
    """What a model is to see of `x`, or None where that is out of its scope."""
    import numpy
    cdef float[::1] out = numpy.zeros(FEATURES, numpy.float32)
    return numpy.asarray(out) if c_within_reach(&x[0], &low[0], &high[0], &out[0]) else None

cdef class Attic:
    """The attic, by the hashes of its keys."""
    cdef c_Attic a

    def __cinit__(self, uint32_t most):
        if attic_init(&self.a, most) < 0:
            raise MemoryError

    def __dealloc__(self):
        attic_free(&self.a)

    def __len__(self):
        return self.a.n

    def put(self, int64_t hash, int64_t now, *, int64_t last, uint32_t born=0, int ns=0, int gap1=0, int gap2=0, int count=1,
            float size=1, float cost=1, decayed=(1.0, 1.0), key=None, int base=0, double price=1e-9):
        """key: WINDOW of (p, q, n) from bin `base`, or None."""
        cdef Record rec
        cdef KeyCell cells_
        cdef float fading[2]
        memset(&rec, 0, sizeof(rec))
        memset(&cells_, 0, sizeof(cells_))
        rec.last, rec.born, rec.ns, rec.gap1, rec.gap2, rec.count = last, born, ns, gap1, gap2, count
        fading[0], fading[1] = decayed
        if key is not None:
            cells_.base = base
            for i, (p, q, n) in enumerate(key):
                cells_.p[i], cells_.q[i], cells_.n[i] = <int>(p * 65535 + 0.5), <int>(q * 65535 + 0.5), n
        return attic_put(&self.a, hash, &rec, size, cost, fading, &cells_ if key is not None else NULL, now, price)

    def get(self, int64_t hash, int64_t now, double price=1e-9):
        """What is remembered of a key, or None."""
        cdef uint32_t r = attic_find(&self.a, hash)
        cdef Record rec
        cdef KeyCell key
        cdef float size, cost
        cdef float decayed[2]
        cdef bint has
        if r == 0 or memoir_over(memoir(&self.a, r), now, price):
            return None
        memoir_record(memoir(&self.a, r), now, &rec, &size, &cost, decayed)
        has = memoir_cells(memoir(&self.a, r), &key)
        return {"last": rec.last, "born": rec.born, "ns": rec.ns, "gap1": rec.gap1, "gap2": rec.gap2, "count": rec.count,
                "size": size, "cost": cost, "decayed": (decayed[0], decayed[1]), "base": key.base,
                "key": [(key.p[i] / 65535.0, key.q[i] / 65535.0, key.n[i]) for i in range(_WINDOW)] if has else None}

    def drop(self, int64_t hash):
        cdef uint32_t r = attic_find(&self.a, hash)
        if r:
            attic_drop(&self.a, r)
        return r != 0

    def bytes(self):
        return attic_bytes(&self.a)

    def sound(self):
        return attic_sound(&self.a)

def dithered(double x, int kind, double noise):
    """The level that `x` is rounded to."""
    return c_level(c_dithered(x, kind, noise), kind)

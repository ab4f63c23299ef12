"""The stack: how much to believe each context, learned as logistic regressions.

The hazard chain shrinks every context to its parent by a fixed rule. Here the log-odds of the contexts are the
inputs of a logistic regression (stacked generalization, Wolpert 1992; in the form that Mattern 2012 gives for
mixing binary predictions): for a bin k of idle age,
    logit p = bias + sum of w_i t_i,
t_i the log-odds of a context less those of its parent. With w = 1 for the chain's own terms and 0 for the rest it is the
chain itself, which is what it starts as. Side contexts that have no place in a chain (what the application says of the
access, decayed counts, size) join as terms of their own.

River learns the weights (learn/river_models.py); this file makes the terms and evaluates. A side context is a row of
SPAN cells, found by hash; a row that two contexts share costs sharpness, never soundness.
"""
from libc.math cimport exp
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy
from hazard cimport Cell, Chain, WINDOW, root, toward

cdef enum:
    SIDES = 11              # side contexts: one an application feature, then three of our own
    CHAIN_TERMS = 8         # everyone, namespace, habit, habit2, and the key by how often it was seen in the bin
    TERMS = 19              # CHAIN_TERMS + SIDES
    BUCKETS = 5             # count buckets
    STAGES = 6              # stages of a wait: groups of four bins, two octaves
    ROWS = 8192             # rows of side cells
    SPAN = 32               # bins of a row; bins apart by SPAN share a cell, and no wait spans so many
    SIDE_LIMIT = 500        # n at which a side cell stops slowing down

cdef struct Side:
    float p                 # probability of a request in the bin, given none before
    float n

cdef struct Stack:
    float weight[BUCKETS][STAGES][TERMS]
    float bias[BUCKETS][STAGES]
    uint32_t version        # of the weights

cdef struct Example:
    float t[TERMS]
    uint8_t bucket
    uint8_t stage
    uint8_t y              # 1: the request came in this bin

cdef inline void stack_init(Stack* s) noexcept nogil:
    cdef int b, g, i
    for b in range(BUCKETS):
        for g in range(STAGES):
            s.bias[b][g] = 0
            for i in range(TERMS):
                s.weight[b][g][i] = 1 if i < CHAIN_TERMS else 0
    s.version = 1

cdef inline double _log2(float x) noexcept nogil:
    """Base-2 logarithm of a positive normal number to 2e-5, by a polynomial: a wait asks for hundreds."""
    cdef uint32_t bits
    cdef float m
    memcpy(&bits, &x, 4)
    cdef int e = <int>(bits >> 23) - 127
    bits = (bits & 0x7FFFFF) | 0x3F800000
    memcpy(&m, &bits, 4)
    return e + (-2.79415368 + m * (5.06975632 + m * (-3.52021884 + m * (1.61017755 + m * (-0.40947559 + m * 0.04392863)))))

cdef inline double logit(double p) noexcept nogil:
    """Log-odds, for p held within 5e-4 of certainty on both sides."""
    if not p > 5e-4:
        p = 5e-4
    elif p > 0.9995:
        p = 0.9995
    return 0.6931471805599453 * (_log2(<float>p) - _log2(<float>(1 - p)))

cdef inline void side_learn(Side* cell, int y) noexcept nogil:
    if cell.n < SIDE_LIMIT:
        cell.n += 1
    cell.p += ((1 if y == 1 else 0) - cell.p) / cell.n

cdef inline int stage_of(int bins) noexcept nogil:
    """The stage of a wait that has come `bins` bins far."""
    return 0 if bins < 0 else (STAGES - 1 if bins >= 4 * STAGES else bins >> 2)

cdef inline double stack_mix(const Stack* s, int bucket, int stage, const double* t) noexcept nogil:
    """Probability of a request in the bin of terms `t`."""
    cdef double z = s.bias[bucket][stage]
    cdef int i
    for i in range(TERMS):
        z += s.weight[bucket][stage][i] * t[i]
    z = 12.0 if z > 12.0 else (-12.0 if z < -12.0 else z)
    return 1 / (1 + exp(-z))

cdef inline void stack_terms(const Chain* c, Side** sides, int k, double* t) noexcept nogil:
    """The terms of bin `k`. `sides`: SIDES rows of SPAN cells, NULL where there is none."""
    cdef double common, own, above  # of the chain: before habits, so far, and the log-odds so far
    cdef const Cell* cell
    cdef const Side* side
    cdef int i, n
    for i in range(TERMS):
        t[i] = 0
    cell = &c.everyone[k]
    own = toward(cell.p, cell.n, root())
    above = logit(own)
    t[0] = above
    if c.namespace_ is not NULL:
        cell = &c.namespace_[k]
        own = toward(cell.p, cell.n, own)
        t[1] = logit(own) - above
        above += t[1]
    common = own
    for i in range(SIDES):
        if sides[i] is not NULL:
            side = &sides[i][k & (SPAN - 1)]
            if side.n > 0:
                t[CHAIN_TERMS + i] = logit(toward(side.p, side.n, common)) - above
    cell = &c.habit[k]
    own = toward(cell.p, cell.n, own)
    t[2] = logit(own) - above
    above += t[2]
    cell = &c.habit2[k]
    own = toward(cell.p, cell.n, own)
    t[3] = logit(own) - above
    above += t[3]
    if c.key is not NULL:
        i = k - c.key.base
        if 0 <= i < WINDOW and c.key.n[i]:
            n = c.key.n[i]
            i = 4 if n <= 2 else (5 if n <= 6 else (6 if n <= 15 else 7))
            t[i] = logit(toward(c.key.p[k - c.key.base] / 65535.0, n, own)) - above

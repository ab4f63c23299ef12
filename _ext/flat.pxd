"""Models frozen to flat arrays, and their evaluation on a feature vector.

`Line` is a stack of logistic regressions, one a group of four bins (two octaves); `Tree` is a
regression tree whose leaves are hazard cells; `Rule` is a user's regressor, a tree whose leaves are linear. The learner builds a new one and swaps the
pointer; a model that was published never changes.
"""
from libc.math cimport exp, log1p
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport free
from bins cimport NB

cdef enum:
    FEATURES = 20
    GROUPS = 27             # NB / 4
    LEAVES = 128
    # Features by number, where this file has to tell them apart (engine.pxd has the order).
    LOG_COUNT = 12
    LOG_AGE = 15

cdef struct Line:
    float weight[GROUPS][FEATURES]
    float bias[GROUPS]
    float trained[GROUPS]   # labels seen: a group without any has no opinion
    float low[FEATURES]     # the range that was trained on
    float high[FEATURES]

cdef struct TreeNode:
    int32_t feature         # < 0: a leaf, its number in `left`
    float threshold         # x <= threshold goes left
    uint32_t left
    uint32_t right

cdef struct Tree:
    TreeNode* nodes
    uint32_t n
    float low[FEATURES]
    float high[FEATURES]

cdef struct Fork:
    int32_t feature         # < 0: a leaf, its row in `left`
    double threshold        # x <= threshold goes left
    uint32_t left
    uint32_t right

cdef struct Rule:
    Fork* forks
    double* rows            # a leaf's weights, and what is added to them: FEATURES + 1 each
    bint exponential        # e to the sum

cdef inline void rule_free(Rule* r) noexcept nogil:
    if r is not NULL:
        free(r.forks)
        free(r.rows)
        free(r)

cdef inline double rule_seconds(const Rule* r, const float* x) noexcept nogil:
    """How long a user's model expects the wait to be; may be anything, as it may from the model itself."""
    cdef uint32_t i = 0
    cdef int d
    cdef double z
    cdef const double* row
    while r.forks[i].feature >= 0:
        i = r.forks[i].left if x[r.forks[i].feature] <= r.forks[i].threshold else r.forks[i].right
    row = &r.rows[r.forks[i].left * (FEATURES + 1)]
    z = row[FEATURES]
    for d in range(FEATURES):
        if row[d] != 0:
            z += row[d] * x[d]
    return exp(z) if r.exponential else z

cdef inline bint in_scope(const float* x, const float* low, const float* high) noexcept nogil:
    """Inside the range of what was trained on; NaN is outside."""
    cdef int d
    for d in range(FEATURES):
        if not (low[d] <= x[d] <= high[d]):
            return False
    return True

cdef inline bint within_reach(const float* x, const float* low, const float* high, float* out) noexcept nogil:
    """`in_scope`, but age and count do not leave the scope; `out` is x as the model is to see it.

    A stream is always a little older than what its model was trained on: these two are held at the edge of the range.
    """
    cdef int d
    for d in range(FEATURES):
        out[d] = x[d]
        if d == LOG_COUNT or d == LOG_AGE:
            if out[d] < low[d]:
                out[d] = low[d]
            elif out[d] > high[d]:
                out[d] = high[d]
    return in_scope(out, low, high)

cdef inline double _softplus(double z) noexcept nogil:
    """log(1 + e^z) = -log(1 - sigmoid(z)), the cumulative hazard."""
    return log1p(exp(z))

cdef inline void line_hazards(const Line* m, const float* x, float* out, int base, int n) noexcept nogil:
    """out[i] = probability of a request in bin base + i, given none before."""
    cdef int i, d, g, last = -1
    cdef double z, p = 0
    for i in range(n):
        g = (base + i) >> 2
        if g != last:
            last = g
            z = m.bias[g]
            for d in range(FEATURES):
                z += m.weight[g][d] * x[d]
            # A group's hazard is spread evenly over its four bins: 1 - (1 - P)**(1/4).
            z = 30.0 if z > 30.0 else (-30.0 if z < -30.0 else z)
            p = 1.0 - exp(-0.25 * _softplus(z))
        out[i] = <float>p

cdef inline uint32_t tree_leaf(const Tree* t, const float* x) noexcept nogil:
    cdef uint32_t i = 0
    while t.nodes[i].feature >= 0:
        if x[t.nodes[i].feature] <= t.nodes[i].threshold:
            i = t.nodes[i].left
        else:
            i = t.nodes[i].right
    return t.nodes[i].left

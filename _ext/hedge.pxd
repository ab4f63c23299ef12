"""A Hedge with fixed share over all experts, one state a context.

AdaHedge (de Rooij, van Erven, Gruenwald and Koolen, JMLR 2014) sets the learning rate from the
mixability gap that was really paid; losses and gap are discounted with a half-life, and an
expert's deficit is capped at ln(K / SHARE) / eta, which keeps the weight of each above
about SHARE / K: the fixed share of Herbster and Warmuth (1998), so a late winner is found again.
"""
from libc.math cimport exp, log
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    EXPERTS = 48

cdef struct Hedge:
    double loss[EXPERTS]    # discounted, up to a common constant
    double round_[EXPERTS]  # charged since the last round was closed
    double weight[EXPERTS]  # sums to one over the experts that take part
    double gap              # discounted mixability gap
    double labels           # discounted number of labels
    uint32_t pending        # labels in the open round

cdef inline void hedge_init(Hedge* h, const double* prior) noexcept nogil:
    """`prior` gives shares that sum to one; an expert of share 0 takes no part."""
    cdef int e
    for e in range(EXPERTS):
        h.loss[e] = 0
        h.round_[e] = 0
        h.weight[e] = prior[e]
    h.gap = 0
    h.labels = 0
    h.pending = 0

cdef inline double hedge_eta(Hedge* h) noexcept nogil:
    """Learning rate; losses are in units of an average miss."""
    cdef double eta = 3.0 / (h.gap + 1e-9)
    return 4.0 if eta > 4.0 else eta

cdef inline void hedge_close(Hedge* h, const double* prior, double keep, double share) noexcept nogil:
    """End a round: pay the gap, discount by `keep`, and weigh the experts anew."""
    cdef double eta = hedge_eta(h), dot = 0, mix = 0, low = 1e300, cap, total, best = 1e300
    cdef int e
    for e in range(EXPERTS):
        if prior[e] > 0 and h.round_[e] < low:
            low = h.round_[e]
    for e in range(EXPERTS):
        if prior[e] > 0:
            dot += h.weight[e] * (h.round_[e] - low)
            mix += h.weight[e] * exp(-eta * (h.round_[e] - low))
    if mix > 0:
        dot += log(mix) / eta
        if dot > 0:
            h.gap = keep * h.gap + dot
    h.labels = keep * h.labels + h.pending
    h.pending = 0
    for e in range(EXPERTS):
        if prior[e] > 0:
            h.loss[e] = keep * h.loss[e] + h.round_[e]
            if h.loss[e] < best:
                best = h.loss[e]
        h.round_[e] = 0
    eta = hedge_eta(h)
    cap = log(1.0 / share) / eta
    total = 0
    for e in range(EXPERTS):
        if prior[e] > 0:
            h.loss[e] -= best
            if h.loss[e] > cap:
                h.loss[e] = cap
            h.weight[e] = prior[e] * exp(-eta * h.loss[e])
            total += h.weight[e]
    for e in range(EXPERTS):
        h.weight[e] = h.weight[e] / total if prior[e] > 0 else 0.0

cdef inline void hedge_forget(Hedge* h, double keep) noexcept nogil:
    """After a drift alarm: what was learned counts `keep` of what it did."""
    cdef int e
    for e in range(EXPERTS):
        h.loss[e] *= keep
    h.gap *= keep
    h.labels *= keep

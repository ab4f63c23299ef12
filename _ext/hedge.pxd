"""A Hedge with fixed share over all experts, one state a context.

AdaHedge (de Rooij, van Erven, Gruenwald and Koolen, JMLR 2014) sets the learning rate from the
mixability gap that was really paid; losses and gap are discounted with a half-life, and an
expert's deficit is capped at ln(K / SHARE) / eta, which keeps the weight of each above
about SHARE / K: the fixed share of Herbster and Warmuth (1998), so a late winner is found again.

Two levels. Drawing an expert by weight is what the regret bound is about, but holding while more
than half of the weight holds costs less nearly everywhere (docs/decisions.md). So a Hedge of two,
above, chooses between the majority and the draw by what either really cost: at most one
more log-term is paid over the better of them.
"""
from libc.math cimport exp, log
from libc.stdint cimport uint32_t

cdef enum:
    EXPERTS = 48
    LEADER = 47             # the weighted majority of the others
    ALONE = 2000            # labels at which a context's own losses count twice as much as those above it

cdef struct Hedge:
    double loss[EXPERTS]    # discounted, up to a common constant
    double round_[EXPERTS]  # charged since the last round was closed
    double weight[EXPERTS]  # sums to one over the experts that take part
    double gap              # discounted mixability gap
    double lead             # discounted loss of the majority less that of drawing by weight
    double lead_gap
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
    h.lead = 0
    h.lead_gap = 0
    h.labels = 0
    h.pending = 0

cdef inline double _hedge_rate(double numerator, double gap) noexcept nogil:
    cdef double eta = numerator / (gap + 1e-9)
    return 4.0 if eta > 4.0 else eta

cdef inline double hedge_eta(Hedge* h) noexcept nogil:
    """Learning rate; losses are in units of an average miss."""
    return _hedge_rate(3.0, h.gap)

cdef inline double _hedge_trust(Hedge* h, double lead, double prior, double trust, double keep,
                                double share) noexcept nogil:
    """The upper Hedge, of two: probability of following the majority rather than drawing by weight.

    `lead`: what the majority lost this round beyond what drawing would have cost.
    """
    cdef double eta = _hedge_rate(1.0, h.lead_gap), cap = log(1.0 / share), x = eta * lead
    # The mixability gap: trust * lead + ln(1 - trust + trust * e**-x) / eta, without overflow.
    x = trust * lead + (log(1 - trust + trust * exp(-x)) / eta if x > -500 else -lead)
    h.lead_gap = keep * h.lead_gap + (x if x > 0 else 0)
    h.lead = keep * h.lead + lead
    eta = _hedge_rate(1.0, h.lead_gap)
    if h.lead > cap / eta:
        h.lead = cap / eta
    elif h.lead < -cap / eta:
        h.lead = -cap / eta
    return prior / (prior + (1 - prior) * exp(eta * h.lead))

cdef inline void hedge_close(Hedge* h, const double* prior, double keep, double share,
                             const Hedge* above) noexcept nogil:
    """End a round: pay the gap, discount by `keep`, and weigh the experts anew.

    What the experts lost in the context `above` (NULL for none) counts as evidence too, the less the more
    labels this one has: few of its own say little.
    """
    cdef double eta = hedge_eta(h), dot = 0, mix = 0, low = 1e300, cap, total = 0, best = 1e300
    cdef double trust = h.weight[LEADER], lead, lost
    cdef int e
    for e in range(LEADER):
        if prior[e] > 0:
            total += h.weight[e]
            if h.round_[e] < low:
                low = h.round_[e]
    for e in range(LEADER):
        if prior[e] > 0:
            dot += h.weight[e] / total * (h.round_[e] - low)
            mix += h.weight[e] / total * exp(-eta * (h.round_[e] - low))
    lead = h.round_[LEADER] - low - dot
    if mix > 0:
        dot += log(mix) / eta
        if dot > 0:
            h.gap = keep * h.gap + dot
    h.labels = keep * h.labels + h.pending
    h.pending = 0
    for e in range(LEADER):
        if prior[e] > 0:
            h.loss[e] = keep * h.loss[e] + h.round_[e]
            if h.loss[e] < best:
                best = h.loss[e]
    if prior[LEADER] > 0:
        h.loss[LEADER] = keep * h.loss[LEADER] + h.round_[LEADER] - best
        trust = _hedge_trust(h, lead, prior[LEADER], trust, keep, share)
    eta = hedge_eta(h)
    cap = log(1.0 / share) / eta
    total = 0
    for e in range(LEADER):
        h.round_[e] = 0
        if prior[e] > 0:
            h.loss[e] -= best
            if h.loss[e] > cap:
                h.loss[e] = cap
            lost = h.loss[e]
            if above is not NULL:
                lost += above.loss[e] * ALONE / (ALONE + h.labels)
                if lost > cap:
                    lost = cap
            h.weight[e] = prior[e] * exp(-eta * lost)
            total += h.weight[e]
    h.round_[LEADER] = 0
    for e in range(LEADER):
        h.weight[e] = h.weight[e] / total * (1 - trust) if prior[e] > 0 else 0.0
    h.weight[LEADER] = trust

cdef inline void hedge_forget(Hedge* h, double keep) noexcept nogil:
    """After a drift alarm: what was learned counts `keep` of what it did."""
    cdef int e
    for e in range(EXPERTS):
        h.loss[e] *= keep
    h.gap *= keep
    h.lead *= keep
    h.lead_gap *= keep
    h.labels *= keep

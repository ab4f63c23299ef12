# Log: the journal's way out. Finished decisions as tuples, for `adaptcache/decisionlog.py` to write.
#
# Plain numbers, seconds at this boundary; None for a time that has not come or never does.

LOG_CAPACITY = 1 << 15

cdef Journal* _journal_new(double sample, uint64_t salt, int64_t now) except NULL:
    cdef Journal* j = <Journal*>calloc(1, sizeof(Journal))
    if j is NULL or journal_init(j, sample, salt, LOG_CAPACITY, now) < 0:
        _journal_gone(j)
        raise MemoryError
    return j

cdef void _journal_gone(Journal* j) noexcept:
    if j is not NULL:
        journal_free(j)
        free(j)

cdef inline object _age(int64_t when, int64_t since):
    return None if when == INT64_MAX else <double>(when - since) / 1e9

cdef list _journal_rows(Journal* j, int most):
    """Take over the oldest finished decisions, as tuples; see `decisionlog.ROW` for their fields."""
    cdef list rows = []
    cdef Decision d
    cdef uint32_t s
    cdef int e
    while most > 0 and j.done.tail != NIL:
        s = j.done.tail
        # A copy first: making Python objects may collect garbage, whose finalizers may call in.
        d = j.decisions[s]
        journal_give(j, s)
        most -= 1
        experts = None
        if d.has_verdict:
            experts = [(e, d.weight[e], <bint>((d.holding >> e) & 1)) for e in range(EXPERTS) if d.weight[e] > 0]
        rows.append((
            d.id, d.hash, d.ns, to_seconds(d.last), d.size, d.cost, d.price * 1e9, d.breakeven / 1e9,
            None if d.window == INT64_MAX else <double>d.window / 1e9, _age(d.ceiling, d.last), d.count,
            [d.x[e] for e in range(FEATURES)] if d.has_verdict else None, experts, <bint>d.hold, d.back, d.ratio,
            <bint>d.followed, _age(d.decided, d.last), _age(d.refused, d.last), _age(d.gone, d.last),
            _age(d.ended, d.last), d.bound, d.outcome, <bint>d.found, <bint>d.premature))
    return rows

cdef dict _journal_state(Journal* j):
    return {"dropped": j.dropped, "open": j.open_.n, "waiting": j.done.n, "sample": <double>j.sample / 18446744073709551615.0}

"""The guard: keeps the premature-expiry promise whatever the models say.

The bank (guarantee "absolute"). Credit = alpha * N + 1 - lost, N the requests that came within
the protected window after the last access of their key, `lost` those among them that we had
removed. An early removal (idle age within the window) needs outstanding + 1 <= credit,
`outstanding` being the early removals whose window has not passed. Each of these can become at
most one loss and N never falls, so lost + outstanding <= alpha * N + 1 at every moment, for
every model and every sequence of requests (docs/promise.md).

"expected" caps the *predicted* losses of the outstanding instead.

The ladder decides which removals deserve the credit: virtual policies, each asking for a larger
ratio of rent saved to risk run, are scored on every protected request; the guard uses the
least demanding one whose discounted loss rate fits the budget. A protected request is lost by
all who ask for no more than the largest ratio its wait offered, so one histogram of those
ratios scores all of them, eight to the octave.
"""
from libc.math cimport log2
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from arena cimport Arena, NIL, arena_free, arena_give, arena_init, arena_reserve, arena_take
from table cimport (Table, table_first, table_free, table_init, table_insert, table_next, table_remove,
                    table_reserve, table_tag)
from wheel cimport Wheel, wheel_cancel, wheel_free, wheel_init, wheel_pop, wheel_reserve, wheel_schedule

cdef enum:
    RUNGS = 256             # eight to the octave, from 1/256 of a miss saved per miss risked
    STEPS = 8
    SIZES = 192             # two to the octave
    GHOSTS_ALIKE = 32       # open windows of keys that share one whole hash

cdef struct Guard:
    double alpha            # 1 = off
    bint expected
    uint64_t protected_
    uint64_t lost
    uint64_t refused        # early removals that the bank or the ladder turned down
    double risk             # predicted losses of the outstanding
    Arena ghosts            # one per outstanding removal; its hash
    float* risks            # predicted loss of each ghost
    uint32_t risks_cap
    Table index
    Wheel wheel             # the end of each window
    double tempted[RUNGS]   # protected requests by the ratio at which they would have been lost; weights grow
    double tempted_above    # sum of those at `rung` and above
    double rung_n
    double rung_step        # weight of the next one
    int rung                # in use: removals whose ratio lies on it or above are allowed
    double sizes[SIZES]     # of those that asked lately, with weights that grow
    double size_total
    double size_step
    double worst            # the largest lost + outstanding - bound that ever was

cdef inline int guard_init(Guard* g, double alpha, bint expected, int64_t now) noexcept nogil:
    cdef int k
    g.alpha = alpha
    g.expected = expected
    g.protected_ = 0
    g.lost = 0
    g.refused = 0
    g.risk = 0
    g.risks = NULL
    g.risks_cap = 0
    g.rung_n = 0
    g.rung_step = 1
    g.rung = 0              # nothing is known yet, and the bank bounds it anyway
    g.tempted_above = 0
    for k in range(SIZES):
        g.sizes[k] = 0
    g.size_total = 0
    g.size_step = 1
    g.worst = -1
    for k in range(RUNGS):
        g.tempted[k] = 0
    wheel_init(&g.wheel, now)
    if arena_init(&g.ghosts, 16) < 0 or table_init(&g.index, 16) < 0:
        return -1
    return 0

cdef inline double guard_credit(Guard* g) noexcept nogil:
    return g.alpha * <double>g.protected_ + 1 - <double>g.lost

cdef inline void guard_expire(Guard* g, int64_t now) noexcept nogil:
    """Windows that have passed release their credit."""
    cdef uint32_t s
    while True:
        # A window is closed: a request at its very end still counts.
        s = wheel_pop(&g.wheel, now - 1)
        if s == NIL:
            return
        _guard_drop(g, s)

cdef inline void _guard_drop(Guard* g, uint32_t s) noexcept nogil:
    wheel_cancel(&g.wheel, s)
    table_remove(&g.index, g.ghosts.slots[s].hash, s)
    g.risk -= g.risks[s]
    arena_give(&g.ghosts, s)
    if g.ghosts.n == 0:
        g.risk = 0

cdef inline bint _guard_ranks(Guard* g, double size) noexcept nogil:
    """While credit is scarce, it goes to the entries that save most rent for each second of it: the largest.

    Three times the share of credit that is free must cover the share of recent askers that are larger,
    so among equals nobody is turned away.
    """
    cdef int k = <int>(2 * log2(size) + 0.5) + 64 if size > 0 else 0, i
    cdef double larger = 0, credit = guard_credit(g)
    k = 0 if k < 0 else (SIZES - 1 if k >= SIZES else k)
    g.sizes[k] += g.size_step
    g.size_total += g.size_step
    g.size_step *= 1 + 1.0 / 2000
    if g.size_step > 1e6:
        for i in range(SIZES):
            g.sizes[i] /= g.size_step
        g.size_total /= g.size_step
        g.size_step = 1
    for i in range(k + 1, SIZES):
        larger += g.sizes[i]
    return larger * credit <= 3 * (credit - g.ghosts.n) * g.size_total

cdef inline bint guard_permits(Guard* g, double ratio, double back, double size) noexcept nogil:
    """May one more entry leave early? `ratio`: rent it saves over risk it runs; `back`: risk to the window's end."""
    if g.alpha >= 1:
        return True
    if not ratio > 0 or _guard_rung(ratio) < g.rung:
        g.refused += 1
        return False
    if g.expected:
        if g.risk + back <= guard_credit(g) - 1:
            return True
    elif _guard_ranks(g, size) and <double>g.ghosts.n + 1 <= guard_credit(g):
        return True
    g.refused += 1
    return False

cdef inline bint guard_crowded(Guard* g, int64_t hash) noexcept nogil:
    """Are as many windows open under one hash as may be? Whoever looks for one walks over all of them, so there is a
    bound, and what comes on top is held: keys chosen to share a hash must not make a look-up slow."""
    cdef uint32_t at = 0, tag = table_tag(&g.index, hash), n = 0
    cdef uint32_t s = table_first(&g.index, tag, &at)
    while s != NIL:
        n += g.ghosts.slots[s].hash == hash
        s = table_next(&g.index, tag, &at)
    if n < GHOSTS_ALIKE:
        return False
    g.refused += 1
    return True

cdef inline int guard_prepare(Guard* g) noexcept nogil:
    """Memory for one more ghost; -1 when there is none, and then nothing may leave early."""
    cdef uint32_t cap
    cdef float* more
    if g.ghosts.free_head == NIL and g.ghosts.top >= g.ghosts.cap:
        if arena_reserve(&g.ghosts, g.ghosts.cap * 2) < 0:
            return -1
    if wheel_reserve(&g.wheel, g.ghosts.cap) < 0:
        return -1
    if g.risks_cap < g.ghosts.cap:
        cap = g.ghosts.cap
        more = <float*>realloc(g.risks, cap * sizeof(float))
        if more is NULL:
            return -1
        g.risks = more
        g.risks_cap = cap
    return table_reserve(&g.index)

cdef inline void guard_record(Guard* g, int64_t hash, int64_t until, double back) noexcept nogil:
    """An early removal that was permitted, whose window ends at `until`."""
    cdef uint32_t s = arena_take(&g.ghosts)
    g.ghosts.slots[s].hash = hash
    g.risks[s] = <float>back
    g.risk += g.risks[s]
    table_insert(&g.index, hash, s)
    wheel_schedule(&g.wheel, s, until)
    _guard_watch(g)

cdef inline void _guard_watch(Guard* g) noexcept nogil:
    cdef double over = <double>g.lost + g.ghosts.n - (g.alpha * <double>g.protected_ + 1)
    if over > g.worst:
        g.worst = over

cdef inline void guard_hit(Guard* g) noexcept nogil:
    """A request within its window found the entry."""
    g.protected_ += 1

cdef inline uint32_t _guard_find(Guard* g, int64_t hash) noexcept nogil:
    """The ghost of a hash; of several keys that share it the one whose window ends first, so that
    what stays outstanding stays so for long enough."""
    cdef uint32_t at = 0, tag = table_tag(&g.index, hash), first = NIL
    cdef uint32_t s = table_first(&g.index, tag, &at)
    while s != NIL:
        if g.ghosts.slots[s].hash == hash and (first == NIL or g.wheel.timers[s].when < g.wheel.timers[first].when):
            first = s
        s = table_next(&g.index, tag, &at)
    return first

cdef inline bint guard_miss(Guard* g, int64_t hash, int64_t now) noexcept nogil:
    """A request that found nothing: premature if we removed its key early and the window is open."""
    cdef uint32_t s
    guard_expire(g, now)
    s = _guard_find(g, hash)
    if s == NIL or g.wheel.timers[s].when < now:
        return False            # the wheel is coarser than the window
    _guard_drop(g, s)
    g.protected_ += 1
    g.lost += 1
    _guard_watch(g)
    return True

cdef inline void guard_forgive(Guard* g, int64_t hash) noexcept nogil:
    """The value was replaced or deleted by the user: an early removal of it can lose nothing more."""
    cdef uint32_t s = _guard_find(g, hash)
    if s != NIL:
        _guard_drop(g, s)

cdef inline void guard_forgive_all(Guard* g) noexcept nogil:
    """The user cleared everything."""
    cdef uint32_t s
    for s in range(1, g.ghosts.top):
        if g.ghosts.slots[s].used:
            _guard_drop(g, s)

cdef inline int _guard_rung(double ratio) noexcept nogil:
    """The rung that a ratio lies on; ratios beyond the last rung lie on the last."""
    cdef double k
    if not ratio > 0:
        return 0
    k = STEPS * (log2(ratio) + 8)
    return 0 if k < 0 else (RUNGS - 1 if k >= RUNGS else <int>k)

cdef inline double _guard_room(Guard* g) noexcept nogil:
    """The losses that the ladder may have shown: the share earned, and what lies idle spread over a future as
    long as the past, or as the time that earns one unit of credit."""
    cdef double idle = guard_credit(g) - (g.risk if g.expected else <double>g.ghosts.n)
    if not idle > 0 or not g.alpha > 0:
        return g.alpha * g.rung_n
    return (g.alpha + idle / (<double>g.protected_ + 1 + 1 / g.alpha)) * g.rung_n

cdef inline void guard_score(Guard* g, double tempted) noexcept nogil:
    """A protected request of a tracked key, lost by whoever asks for a ratio less than `tempted`."""
    cdef int k
    cdef double room
    g.rung_step *= 1 + 1.0 / 20000
    g.rung_n += g.rung_step
    if tempted >= 0:
        k = _guard_rung(tempted)
        g.tempted[k] += g.rung_step
        if k >= g.rung:
            g.tempted_above += g.rung_step
    if g.rung_step > 1e9:
        for k in range(RUNGS):
            g.tempted[k] /= g.rung_step
        g.tempted_above /= g.rung_step
        g.rung_n /= g.rung_step
        g.rung_step = 1
    room = _guard_room(g)
    while g.rung < RUNGS and g.tempted_above > room:
        g.tempted_above -= g.tempted[g.rung]
        g.rung += 1
    while g.rung > 0 and g.tempted_above + g.tempted[g.rung - 1] <= room:
        g.rung -= 1
        g.tempted_above += g.tempted[g.rung]

cdef inline void guard_free(Guard* g) noexcept nogil:
    arena_free(&g.ghosts)
    table_free(&g.index)
    wheel_free(&g.wheel)
    free(g.risks)
    g.risks = NULL

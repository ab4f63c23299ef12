"""When an entry stops being held: fixed, idle, per-entry and learned deadlines on one wheel.

Works on slot numbers, like a policy, so the live cache and the simulator run this very code.
The owner of the entries calls `expiry_begin`, `expiry_hit`, `expiry_miss`, `expiry_end`, and
`expiry_due` until it says NIL; what `expiry_due` and `expiry_gone` name, the owner removes.

Two reasons to let go, never mixed up: the ceiling (the value may be wrong, or the user
said so) and reuse (nobody will want it soon enough). Only the second one can be premature, and
only the second one asks the guard.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from arena cimport Arena, NIL
from bins cimport bin_of, edge
from engine cimport (BELOW, UNFOLLOWED, Engine, Tracker, engine_event, engine_find, engine_follows, engine_judge, engine_step)
from guard cimport (Guard, guard_expire, guard_forgive, guard_hit, guard_init, guard_miss, guard_permits,
                    guard_prepare, guard_record, guard_score, guard_free)
from record cimport Record, record_start, record_touch
from ring cimport EVICTED, GOT, MISSED, REMOVED, STORED, Event, Ring, Touch, ring_pop, ring_push
from table cimport Table, table_first, table_next, tag_of
from wheel cimport (Wheel, wheel_cancel, wheel_free, wheel_init, wheel_next, wheel_pop, wheel_reserve,
                    wheel_schedule, wheel_settle)

cdef enum Kind:
    NEVER = 0
    FIXED = 1
    IDLE = 2
    ENTRY = 3               # the deadline of each entry is computed by the user
    LEARNED = 4

cdef enum Bound:            # what decided; `explain` names it
    BY_NOTHING = 0
    BY_CEILING = 1
    BY_FLOOR = 2
    BY_MIXTURE = 3
    BY_GUARD = 4
    BY_IDLE = 5

cdef struct Life:
    Record rec
    int64_t due             # nothing happens to the entry before; INT64_MAX = never
    int64_t ceiling         # never served at or after
    int64_t floor_          # never let go before, on grounds of reuse
    int64_t window          # protected window after the last access, ns
    double breakeven        # ns; 0 = waiting costs nothing
    float size
    float cost
    uint8_t bound

cdef struct Expiry:
    int kind
    int64_t ttl             # FIXED, IDLE
    int64_t floor_          # LEARNED
    Wheel wheel
    Life* lives
    uint32_t cap
    Arena* arena            # the owner's
    Table* index
    Guard guard
    Engine* engine          # NULL unless LEARNED
    Ring* ring              # where events go when a learner reads them elsewhere; NULL = learn here
    uint64_t early          # entries let go within their window
    int64_t until           # end of the window of the entry just let go; -INT64_MAX = it was not

cdef inline int expiry_init(Expiry* x, int kind, int64_t now, Arena* arena, Table* index) noexcept nogil:
    memset(x, 0, sizeof(Expiry))
    x.kind = kind
    x.until = -INT64_MAX
    x.arena = arena
    x.index = index
    wheel_init(&x.wheel, now)
    return guard_init(&x.guard, 0.01, False, now)

cdef inline int expiry_reserve(Expiry* x, uint32_t cap) noexcept nogil:
    cdef Life* more
    if x.kind == NEVER or cap <= x.cap:
        return 0
    if wheel_reserve(&x.wheel, cap) < 0:
        return -1
    more = <Life*>realloc(x.lives, <size_t>cap * sizeof(Life))
    if more is NULL:
        return -1
    x.lives = more
    x.cap = cap
    return 0

cdef inline int64_t later(int64_t now, int64_t by) noexcept nogil:
    """now + by, held at the end of time; INT64_MAX is for ever, from wherever it is counted."""
    if by == INT64_MAX or (by > 0 and now > INT64_MAX - by):
        return INT64_MAX
    return now + by

cdef inline void _expiry_set(Expiry* x, uint32_t s, int64_t when) noexcept nogil:
    cdef Life* l = &x.lives[s]
    if when > l.ceiling:
        when = l.ceiling
    l.due = when
    if when == INT64_MAX:
        wheel_cancel(&x.wheel, s)
    else:
        wheel_schedule(&x.wheel, s, when)

cdef inline void _expiry_tell(Expiry* x, int64_t hash, int64_t now, int kind, const Touch* touch) noexcept nogil:
    """The learner hears of it: at once, or through the ring."""
    cdef Event* e
    if x.ring is not NULL:
        if not engine_follows(x.engine, hash):
            return
        e = ring_push(x.ring)
        e.hash = hash
        e.now = now
        e.kind = <uint8_t>kind
        e.has_touch = touch is not NULL
        if touch is not NULL:
            e.touch = touch[0]
        return
    engine_event(x.engine, hash, now, kind, touch)
    _expiry_heard(x)

cdef inline void _expiry_heard(Expiry* x) noexcept nogil:
    """Take over what the engine has to say: the ladder's score, and verdicts."""
    cdef uint32_t i, s, at = 0, tag
    cdef int64_t hash, when
    if x.engine.score_ready:
        x.engine.score_ready = False
        guard_score(&x.guard, x.engine.score_ratio)
    for i in range(x.engine.n_pokes):
        hash = x.engine.pokes[i].hash
        tag = tag_of(hash)
        s = table_first(x.index, tag, &at)
        while s != NIL:
            if x.arena.slots[s].hash == hash:
                when = x.engine.pokes[i].at
                if when == UNFOLLOWED:
                    # Nobody speaks for the entry any more: it looks after itself.
                    when = _expiry_first(x, &x.lives[s])
                if when >= x.lives[s].rec.last and when < x.lives[s].due:
                    _expiry_set(x, s, when)
            s = table_next(x.index, tag, &at)
    x.engine.n_pokes = 0

cdef inline void expiry_drain(Expiry* x) noexcept nogil:
    """Let the engine read the ring. For the learner that runs apart from the requests."""
    cdef Event* e
    while True:
        e = ring_pop(x.ring)
        if e is NULL:
            return
        engine_event(x.engine, e.hash, e.now, e.kind, &e.touch if e.has_touch else NULL)
        _expiry_heard(x)

cdef inline void _expiry_price(Expiry* x, Life* l) noexcept nogil:
    """Break-even time and protected window, at today's price of memory.

    An entry whose break-even time is nought or for ever is never let go, but its window is what was
    promised all the same: a request beyond it must not earn credit.
    """
    cdef double rent = <double>l.size * x.engine.price, b, w
    b = l.cost / rent if rent > 0 else 1e300
    w = x.engine.window_ns if x.engine.window_ns >= 0 else b * 0.25
    l.window = <int64_t>w if w < 4e18 else INT64_MAX
    l.breakeven = b if 2 <= b < 4e18 else 0

cdef inline int64_t _expiry_first(Expiry* x, Life* l) noexcept nogil:
    """When to look at the entry first, after an access: the engine pokes it earlier if need be."""
    cdef int at
    if l.breakeven <= 0:
        return INT64_MAX
    at = bin_of(<int64_t>l.breakeven)
    return later(l.rec.last, edge((at - BELOW if at > BELOW else 0) + 1))

cdef inline void expiry_begin(Expiry* x, uint32_t s, int64_t now, int64_t ceiling, const Touch* touch,
                              bint overwrite) noexcept nogil:
    """A value came into slot `s` at `now`, not to be served from `ceiling` on.

    For LEARNED, `touch` carries what is known of it, cost included, and an early removal of the key
    has been forgiven by the owner, who knows keys that share a hash apart.
    """
    cdef Life* l = &x.lives[s]
    cdef int64_t hash = x.arena.slots[s].hash
    if x.kind == NEVER:
        return
    l.ceiling = ceiling
    l.bound = BY_CEILING
    if overwrite:
        record_touch(&l.rec, now)
    else:
        record_start(&l.rec, now, 1, 1, 0)
    l.floor_ = now
    if x.kind == FIXED:
        l.ceiling = later(now, x.ttl) if later(now, x.ttl) < ceiling else ceiling
        _expiry_set(x, s, l.ceiling)
    elif x.kind == IDLE:
        l.bound = BY_IDLE
        _expiry_set(x, s, later(now, x.ttl))
    elif x.kind == ENTRY:
        _expiry_set(x, s, ceiling)
    else:
        l.size = <float>touch.size
        l.cost = <float>touch.cost
        l.rec.ns = touch.ns
        l.rec.size_class = 0
        l.floor_ = later(now, x.floor_)
        l.bound = BY_MIXTURE
        _expiry_price(x, l)
        _expiry_set(x, s, _expiry_first(x, l))
        _expiry_tell(x, hash, now, STORED, touch)

cdef inline void expiry_hit(Expiry* x, uint32_t s, int64_t now, const Touch* touch) noexcept nogil:
    """A request found the entry. `touch` may be NULL."""
    cdef Life* l = &x.lives[s]
    if x.kind == LEARNED:
        if now - l.rec.last <= l.window:
            guard_hit(&x.guard)
        record_touch(&l.rec, now)
        if x.ring is NULL:
            if touch is not NULL:
                l.size = <float>touch.size
                if touch.cost >= 0:
                    l.cost = <float>touch.cost
                l.rec.ns = touch.ns
            _expiry_price(x, l)
        _expiry_tell(x, x.arena.slots[s].hash, now, GOT, touch)
    elif x.kind == IDLE:
        l.rec.last = now        # lazily: the timer finds out when it fires

cdef inline bint expiry_miss(Expiry* x, int64_t hash, int64_t now, const Touch* touch, bint early) noexcept nogil:
    """A request found nothing; True when that is our fault. `early`: this very key may have left early."""
    cdef bint premature = False
    if x.kind == LEARNED:
        premature = early and guard_miss(&x.guard, hash, now)
        _expiry_tell(x, hash, now, MISSED, touch)
    return premature

cdef inline void expiry_absent(Expiry* x, int64_t hash, int64_t now, bint early) noexcept nogil:
    """The user deleted, or wrote over, a key that is not held: what we let go early can be lost no more."""
    if x.kind != LEARNED:
        return
    if early:
        guard_forgive(&x.guard, hash)
    _expiry_tell(x, hash, now, REMOVED, NULL)

cdef inline void expiry_end(Expiry* x, uint32_t s, int64_t now, int kind) noexcept nogil:
    """The entry leaves for another reason: REMOVED by the user or EVICTED."""
    if x.kind == NEVER:
        return
    wheel_cancel(&x.wheel, s)
    x.lives[s].due = INT64_MAX
    if x.kind == LEARNED:
        _expiry_tell(x, x.arena.slots[s].hash, now, kind, NULL)

cdef inline bint expiry_gone(Expiry* x, uint32_t s, int64_t now, int64_t* at) noexcept nogil:
    """Is the entry to be let go by `now`? If so `at` says since when; else its timer is set anew."""
    if not _expiry_over(x, s, now, at):
        return False
    wheel_cancel(&x.wheel, s)
    x.lives[s].due = INT64_MAX
    return True

cdef inline bint _expiry_over(Expiry* x, uint32_t s, int64_t now, int64_t* at) noexcept nogil:
    cdef Life* l = &x.lives[s]
    cdef Tracker judged
    cdef Tracker* t
    cdef uint32_t r
    cdef int64_t when = l.due, age, hash
    cdef int j
    if when > now:
        return False
    if l.ceiling <= when:
        at[0] = l.ceiling
        l.bound = BY_CEILING
        return True
    if x.kind == IDLE:
        if later(l.rec.last, x.ttl) <= now:
            at[0] = later(l.rec.last, x.ttl)
            if l.ceiling < at[0]:
                at[0] = l.ceiling
            return True
        _expiry_set(x, s, later(l.rec.last, x.ttl))
        if l.ceiling <= now:
            at[0] = l.ceiling
            return True
        return False
    if x.kind != LEARNED:
        at[0] = when
        return True
    # The ceiling decides over everything once it has passed, even if this timer was earlier.
    if l.breakeven <= 0:
        _expiry_set(x, s, INT64_MAX)
        return _expiry_over(x, s, now, at) if l.due <= now else False
    if when < l.rec.last:
        _expiry_set(x, s, _expiry_first(x, l))
        return _expiry_over(x, s, now, at) if l.due <= now else False
    if when < l.floor_:
        l.bound = BY_FLOOR
        _expiry_set(x, s, l.floor_)
        return _expiry_over(x, s, now, at) if l.due <= now else False
    hash = x.arena.slots[s].hash
    age = when - l.rec.last
    r = engine_find(x.engine, hash)
    t = NULL
    if r != NIL:
        t = &x.engine.trackers[r]
        if t.rec.last != l.rec.last or not (t.open_ or not t.hold):
            t = NULL
    if t is not NULL:
        j = -1
    else:
        engine_judge(x.engine, &l.rec, l.breakeven, l.window, age, hash, &judged)
        t = &judged
        j = bin_of(age)
    if t.hold:
        l.bound = BY_MIXTURE
        if j < 0:
            # The engine follows this key and will say when to look again.
            _expiry_set(x, s, INT64_MAX)
        else:
            _expiry_set(x, s, later(l.rec.last, edge(j + 1)))
        return _expiry_over(x, s, now, at) if l.due <= now else False
    if age <= l.window:
        guard_expire(&x.guard, when)
        if guard_prepare(&x.guard) < 0 or not guard_permits(&x.guard, t.ratio, t.back, l.size):
            l.bound = BY_GUARD
            # Held to the end of its window, or until credit is there at the next look.
            when = later(later(l.rec.last, l.window), 1)
            if j >= 0 and later(l.rec.last, edge(j + 1)) < when:
                when = later(l.rec.last, edge(j + 1))
            _expiry_set(x, s, when)
            return _expiry_over(x, s, now, at) if l.due <= now else False
        # A request from the ceiling on would not have found the entry anyway.
        x.until = later(l.rec.last, l.window)
        if x.until >= l.ceiling:
            x.until = l.ceiling - 1
        guard_record(&x.guard, hash, x.until, t.back)
        x.early += 1
    l.bound = BY_MIXTURE
    at[0] = when
    return True

cdef inline uint32_t expiry_due(Expiry* x, int64_t now, int64_t* at, int* budget) noexcept nogil:
    """The next slot to let go by `now`, with the time since when; NIL when there is none.

    Learning and letting go run in the order of their time. At most `budget` timers are looked
    at, and `budget` counts down.
    """
    cdef int64_t te, ts, upto = now
    cdef uint32_t s
    while budget[0] > 0:
        if x.engine is not NULL and x.ring is NULL:
            # Turn both wheels together, step by step: a verdict is acted on before the engine has
            # gone on to later edges, whose rent and risk are not those of the removal.
            upto = expiry_next(x)
            if upto > now:
                return NIL
        ts = wheel_settle(&x.wheel, upto)
        te = INT64_MAX
        if x.engine is not NULL and x.ring is NULL:
            te = wheel_settle(&x.engine.wheel, upto)
        if te == INT64_MAX and ts == INT64_MAX:
            if upto >= now:
                return NIL
            continue
        budget[0] -= 1
        if te <= ts:
            engine_step(x.engine, upto)
            _expiry_heard(x)
            continue
        s = wheel_pop(&x.wheel, upto)
        if expiry_gone(x, s, upto, at):
            return s
    return NIL

cdef inline int64_t expiry_next(Expiry* x) noexcept nogil:
    """Nanoseconds before which `expiry_due` has nothing to do."""
    cdef int64_t a = wheel_next(&x.wheel), b
    if x.engine is not NULL and x.ring is NULL:
        b = wheel_next(&x.engine.wheel)
        if b < a:
            a = b
    return a

cdef inline void expiry_free(Expiry* x) noexcept nogil:
    wheel_free(&x.wheel)
    free(x.lives)
    x.lives = NULL
    guard_free(&x.guard)

"""When an entry stops being held: fixed, idle, per-entry and learned deadlines on one wheel.

Works on slot numbers, like a policy, so the live cache and the simulator run this very code.
The owner of the entries calls `expiry_begin`, `expiry_hit`, `expiry_miss`, `expiry_end`, and
`expiry_due` until it says NIL; what `expiry_due` and `expiry_gone` name, the owner removes.

Two reasons to let go, never mixed up: the ceiling (the value may be wrong, or the user
said so) and reuse (nobody will want it soon enough). Only the second one can be premature, and
only the second one asks the guard.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset
from arena cimport Arena, NIL
from bins cimport bin_of, edge
from engine cimport (BELOW, UNFOLLOWED, Engine, Tracker, _engine_features, engine_event, engine_find, engine_follows, engine_judge,
                     engine_step, engine_weights, engine_window)
from fresh cimport (Fresh, fresh_extends, fresh_free, fresh_loaded, fresh_missed, fresh_find, fresh_init,
                    fresh_review, fresh_take)
from guard cimport (Guard, _guard_find, guard_expire, guard_forgive, guard_hit, guard_init, guard_miss, guard_permits,
                    guard_prepare, guard_record, guard_score, guard_free)
from journal cimport (BY_CAPACITY, Decision, HORIZON, IDLE_HORIZON, Journal, OUT_ASKED, OUT_DELETED, OUT_WRITTEN,
                      journal_begin, journal_find, journal_finish, journal_gone, journal_samples, journal_verdict)
from record cimport Record, octave, record_start, record_touch
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
    BY_FRESHNESS = 6

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
    uint32_t fresh          # what is known of the key's changes; NIL = the validity is the user's business

cdef struct Expiry:
    int kind
    int64_t ttl             # FIXED, IDLE
    int64_t floor_          # LEARNED
    Wheel wheel
    Life* lives
    uint32_t cap
    Arena* arena            # the owner's
    Table* index
    Guard guard             # the bank of every namespace without one of its own
    Guard* banks            # of namespaces 1 .. n_banks
    uint32_t n_banks
    Engine* engine          # NULL unless LEARNED
    Ring* ring              # where events go when a learner reads them elsewhere; NULL = learn here
    Fresh* fresh            # NULL unless validities are learned
    uint64_t early          # entries let go within their window
    int64_t until           # end of the window of the entry just let go; -INT64_MAX = it was not
    Journal* journal        # the owner's; NULL = nobody wants to read the decisions

cdef inline int expiry_init(Expiry* x, int kind, int64_t now, Arena* arena, Table* index) noexcept nogil:
    memset(x, 0, sizeof(Expiry))
    x.kind = kind
    x.until = -INT64_MAX
    x.arena = arena
    x.index = index
    wheel_init(&x.wheel, now)
    return guard_init(&x.guard, 0.01, False, now)

cdef inline Guard* expiry_bank(Expiry* x, uint32_t namespace_) noexcept nogil:
    """The bank that answers for a namespace."""
    return &x.banks[namespace_ - 1] if 1 <= namespace_ <= x.n_banks else &x.guard

cdef inline Guard* expiry_nth_bank(Expiry* x, uint32_t i) noexcept nogil:
    """Bank i of 0 .. n_banks; the last is everybody else's."""
    return &x.banks[i] if i < x.n_banks else &x.guard

cdef inline int expiry_banks(Expiry* x, const double* alpha, uint32_t n, int64_t now) noexcept nogil:
    """A bank of its own for each of the namespaces 1 .. n. Once, before the first request."""
    cdef uint32_t i
    x.banks = <Guard*>calloc(n, sizeof(Guard))
    if x.banks is NULL:
        return -1
    for i in range(n):
        x.n_banks = i + 1       # so that `expiry_free` frees what was begun
        if guard_init(&x.banks[i], alpha[i], x.guard.expected, now) < 0:
            return -1
    return 0

cdef inline uint32_t expiry_in_flight(Expiry* x) noexcept nogil:
    """Early removals whose window is open, in all banks."""
    cdef uint32_t i, n = 0
    for i in range(x.n_banks + 1):
        n += expiry_nth_bank(x, i).ghosts.n
    return n

cdef inline uint64_t expiry_refused(Expiry* x) noexcept nogil:
    """Early removals that were turned down, by all banks."""
    cdef uint32_t i
    cdef uint64_t n = 0
    for i in range(x.n_banks + 1):
        n += expiry_nth_bank(x, i).refused
    return n

cdef inline void expiry_forgive(Expiry* x, int64_t hash) noexcept nogil:
    """The user replaced or deleted the value: an early removal of it can lose nothing more, whoever permitted it."""
    cdef uint32_t i
    cdef Guard* g
    for i in range(x.n_banks + 1):
        g = expiry_nth_bank(x, i)
        if _guard_find(g, hash) != NIL:
            guard_forgive(g, hash)
            return

cdef inline int expiry_reserve(Expiry* x, uint32_t cap) noexcept nogil:
    cdef Life* more
    if x.kind == NEVER or cap <= x.cap:
        return 0
    if wheel_reserve(&x.wheel, cap) < 0:
        return -1
    more = <Life*>realloc(x.lives, <size_t>cap * sizeof(Life))
    if more is NULL:
        return -1
    memset(&more[x.cap], 0, <size_t>(cap - x.cap) * sizeof(Life))
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
    if x.fresh is not NULL and l.fresh != NIL and when > x.fresh.keys[l.fresh].due:
        when = x.fresh.keys[l.fresh].due
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
        guard_score(expiry_bank(x, x.engine.score_ns), x.engine.score_ratio)
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
    w = engine_window(x.engine, b)
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
        if x.journal is not NULL:
            expiry_note_written(x, hash, now)
            _expiry_note_access(x, s, now, touch)

cdef inline void expiry_hit(Expiry* x, uint32_t s, int64_t now, const Touch* touch) noexcept nogil:
    """A request found the entry. `touch` may be NULL."""
    cdef Life* l = &x.lives[s]
    if x.kind == LEARNED:
        if now - l.rec.last <= l.window:
            guard_hit(expiry_bank(x, l.rec.ns))
        record_touch(&l.rec, now)
        l.bound = BY_MIXTURE
        if x.ring is NULL:
            if touch is not NULL:
                l.size = <float>touch.size
                if touch.cost >= 0:
                    l.cost = <float>touch.cost
                l.rec.ns = touch.ns
            _expiry_price(x, l)
        _expiry_tell(x, x.arena.slots[s].hash, now, GOT, touch)
        if x.journal is not NULL:
            _expiry_note_request(x, x.arena.slots[s].hash, now, True, False)
            _expiry_note_access(x, s, now, touch)
    elif x.kind == IDLE:
        l.rec.last = now        # lazily: the timer finds out when it fires

cdef inline bint expiry_miss(Expiry* x, int64_t hash, int64_t now, const Touch* touch, bint early) noexcept nogil:
    """A request found nothing; True when that is our fault. `early`: this very key may have left early."""
    cdef bint premature = False
    cdef uint32_t i
    if x.kind == LEARNED:
        if early:
            # Whoever permitted the removal answers for it, under whatever namespace it is asked for now.
            for i in range(x.n_banks + 1):
                if guard_miss(expiry_nth_bank(x, i), hash, now):
                    premature = True
                    break
        if x.fresh is not NULL:
            fresh_missed(x.fresh, fresh_find(x.fresh, hash), now)
        _expiry_tell(x, hash, now, MISSED, touch)
        if x.journal is not NULL:
            _expiry_note_request(x, hash, now, False, premature)
    return premature

cdef inline void expiry_absent(Expiry* x, int64_t hash, int64_t now, bint early) noexcept nogil:
    """The user deleted, or wrote over, a key that is not held: what we let go early can be lost no more."""
    if x.kind != LEARNED:
        return
    if early:
        expiry_forgive(x, hash)
    _expiry_tell(x, hash, now, REMOVED, NULL)
    if x.journal is not NULL:
        _expiry_note_end(x, hash, now, REMOVED)

cdef inline void expiry_end(Expiry* x, uint32_t s, int64_t now, int kind) noexcept nogil:
    """The entry leaves for another reason: REMOVED by the user or EVICTED."""
    if x.kind == NEVER:
        return
    wheel_cancel(&x.wheel, s)
    x.lives[s].due = INT64_MAX
    if x.fresh is not NULL:
        _expiry_detach(x, &x.lives[s])
    if x.kind == LEARNED:
        _expiry_tell(x, x.arena.slots[s].hash, now, kind, NULL)
        if x.journal is not NULL:
            _expiry_note_end(x, x.arena.slots[s].hash, now, kind)

# -- learned validity: see fresh.pxd ----------------------------------------------------

cdef inline void _expiry_detach(Expiry* x, Life* l) noexcept nogil:
    if l.fresh != NIL:
        x.fresh.keys[l.fresh].held -= 1
        l.fresh = NIL

cdef inline void expiry_fresh(Expiry* x, uint32_t s, int64_t now, uint16_t ns, bint declared, bint known,
                              uint64_t digest) noexcept nogil:
    """Before `expiry_begin` or `expiry_renew`: a value of this digest comes into slot `s`.

    declared: the user said how long it is valid, so nothing is learned of it.
    """
    cdef Life* l = &x.lives[s]
    cdef uint32_t r
    if declared:
        _expiry_detach(x, l)
        return
    r = fresh_take(x.fresh, x.arena.slots[s].hash)
    if r != l.fresh:
        _expiry_detach(x, l)
        if r != NIL:
            x.fresh.keys[r].held += 1
            l.fresh = r
    if r != NIL:
        fresh_loaded(x.fresh, r, now, ns, known, digest)

cdef inline void expiry_review(Expiry* x, uint32_t s, int64_t now) noexcept nogil:
    """Before a request that finds slot `s`: its learned validity by today's price, which may be less than it was."""
    cdef Life* l = &x.lives[s]
    if l.fresh == NIL:
        return
    fresh_review(x.fresh, l.fresh, now)
    if x.fresh.keys[l.fresh].due < l.due:
        _expiry_set(x, s, l.due)

cdef inline void expiry_renew(Expiry* x, uint32_t s, int64_t now, int64_t ceiling) noexcept nogil:
    """The value in slot `s` was reloaded behind the requests' back: no access, but a new ceiling and validity."""
    cdef Life* l = &x.lives[s]
    l.ceiling = ceiling
    l.floor_ = later(now, x.floor_)
    _expiry_price(x, l)
    _expiry_set(x, s, _expiry_first(x, l))

cdef inline int64_t expiry_valid(Expiry* x, uint32_t s) noexcept nogil:
    """Never served from here on: the ceiling, or the end of the learned validity."""
    cdef Life* l = &x.lives[s]
    if x.fresh is not NULL and l.fresh != NIL and x.fresh.keys[l.fresh].due < l.ceiling:
        return x.fresh.keys[l.fresh].due
    return l.ceiling

cdef inline bint expiry_gone(Expiry* x, uint32_t s, int64_t now, int64_t* at) noexcept nogil:
    """Is the entry to be let go by `now`? If so `at` says since when; else its timer is set anew."""
    if not _expiry_over(x, s, now, at):
        return False
    wheel_cancel(&x.wheel, s)
    x.lives[s].due = INT64_MAX
    if x.journal is not NULL:
        expiry_note_gone(x, s, at[0])
    return True

cdef inline bint _expiry_over(Expiry* x, uint32_t s, int64_t now, int64_t* at) noexcept nogil:
    cdef Life* l = &x.lives[s]
    cdef Tracker judged
    cdef Tracker* t
    cdef Guard* bank
    cdef uint32_t r
    cdef int64_t when = l.due, age, hash
    cdef int j
    if when > now:
        return False
    if l.ceiling <= when:
        at[0] = l.ceiling
        l.bound = BY_CEILING
        return True
    if x.fresh is not NULL and l.fresh != NIL and x.fresh.keys[l.fresh].due <= now:
        if not fresh_extends(x.fresh, l.fresh, now):
            at[0] = x.fresh.keys[l.fresh].due
            l.bound = BY_FRESHNESS
            if l.ceiling < at[0]:
                at[0] = l.ceiling
            return True
        if x.ring is not NULL:
            # Verdicts on reuse are the thread's.
            _expiry_set(x, s, INT64_MAX if l.breakeven <= 0 else later(now, 1))
            return _expiry_over(x, s, now, at) if l.due <= now else False   # the ceiling may have passed, too
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
        if x.journal is not NULL:
            _expiry_note_floor(x, s, when)
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
        bank = expiry_bank(x, l.rec.ns)
        guard_expire(bank, when)
        if guard_prepare(bank) < 0 or not guard_permits(bank, t.ratio, t.back, l.size):
            l.bound = BY_GUARD
            if x.journal is not NULL:
                _expiry_note_verdict(x, s, when, t, j < 0, True)
            # Held to the end of its window, or until credit is there at the next look.
            when = later(later(l.rec.last, l.window), 1)
            if j >= 0 and later(l.rec.last, edge(j + 1)) < when:
                when = later(l.rec.last, edge(j + 1))
            _expiry_set(x, s, when)
            return _expiry_over(x, s, now, at) if l.due <= now else False
        # A request from the ceiling on, or the end of its validity, would not have found the entry anyway.
        x.until = later(l.rec.last, l.window)
        if x.until >= expiry_valid(x, s):
            x.until = expiry_valid(x, s) - 1
        guard_record(bank, hash, x.until, t.back)
        x.early += 1
    l.bound = BY_MIXTURE
    if x.journal is not NULL:
        _expiry_note_verdict(x, s, when, t, j < 0, False)
    at[0] = when
    return True

cdef inline int expiry_learn_fresh(Expiry* x, double p, uint64_t seed, uint32_t most) noexcept nogil:
    """Learn validities from here on, for a budget of p of all reads; -1 when memory is out."""
    x.fresh = <Fresh*>malloc(sizeof(Fresh))
    return -1 if x.fresh is NULL else fresh_init(x.fresh, p, seed, most)

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
    cdef uint32_t i
    wheel_free(&x.wheel)
    free(x.lives)
    x.lives = NULL
    if x.fresh is not NULL:
        fresh_free(x.fresh)
        free(x.fresh)
        x.fresh = NULL
    guard_free(&x.guard)
    for i in range(x.n_banks):
        guard_free(&x.banks[i])
    free(x.banks)
    x.banks = NULL
    x.n_banks = 0

# -- what the learner thinks of an entry, and the journal of it ------------------------------

cdef inline bint expiry_portrait(Expiry* x, uint32_t s, int64_t now, const Touch* touch, Tracker* t) noexcept nogil:
    """What the learner thinks of the entry in slot `s`, into `t`; True when its key is followed.

    A key that is not, or whose last access the learner has not heard of yet, is judged from its record, with
    `touch` (may be NULL) in place of what the learner knows of it.
    """
    cdef Life* l = &x.lives[s]
    cdef int64_t hash = x.arena.slots[s].hash
    cdef uint32_t r = engine_find(x.engine, hash)
    if r != NIL and (l.breakeven <= 0 or x.engine.trackers[r].rec.last == l.rec.last):
        t[0] = x.engine.trackers[r]
        return True
    memset(t, 0, sizeof(Tracker))
    if l.breakeven <= 0:
        return False
    engine_judge(x.engine, &l.rec, l.breakeven, l.window, now - l.rec.last, hash, t)
    if touch is not NULL:
        t.touch = touch[0]
    elif r != NIL:
        t.touch = x.engine.trackers[r].touch
    t.rec.size_class = <uint8_t>octave(l.size)
    t.rec.cost_class = <uint8_t>octave(l.cost)
    _engine_features(x.engine, t, l.rec.last)
    return False

cdef inline void _expiry_note_access(Expiry* x, uint32_t s, int64_t now, const Touch* touch) noexcept nogil:
    """A wait of a sampled key begins."""
    cdef Life* l = &x.lives[s]
    cdef Journal* j = x.journal
    cdef int64_t hash = x.arena.slots[s].hash
    cdef Decision* d
    cdef Tracker t
    cdef uint32_t r
    cdef double horizon
    cdef bint followed
    if not journal_samples(j, hash):
        return
    r = journal_begin(j, hash, now)
    if r == NIL:
        return
    d = &j.decisions[r]
    d.window = l.window
    d.ceiling = l.ceiling
    d.breakeven = l.breakeven
    # Money is counted at the price that was stated: pressure on capacity changes decisions, not what memory costs.
    d.price = x.engine.stated if x.engine.stated > 0 else x.engine.price
    d.size = l.size
    d.cost = l.cost
    d.ns = l.rec.ns
    d.count = l.rec.count
    horizon = HORIZON * <double>l.cost / (<double>l.size * d.price) if l.breakeven > 0 else IDLE_HORIZON * 1e9
    if l.breakeven > 0 and <double>l.window > horizon:
        horizon = <double>l.window      # so that what is premature is always seen
    d.horizon = <int64_t>horizon if horizon < 4e18 else INT64_MAX
    d.bound = BY_NOTHING
    if l.breakeven > 0:
        followed = expiry_portrait(x, s, now, touch, &t)
        d.bound = BY_MIXTURE
        d.x = t.x
        journal_verdict(d, &t, engine_weights(x.engine, &t), followed)

cdef inline void _expiry_note_request(Expiry* x, int64_t hash, int64_t now, bint found, bint premature) noexcept nogil:
    cdef uint32_t r = journal_find(x.journal, hash) if journal_samples(x.journal, hash) else NIL
    if r != NIL:
        x.journal.decisions[r].found = found
        x.journal.decisions[r].premature = premature
        journal_finish(x.journal, r, OUT_ASKED, now)

cdef inline void expiry_note_written(Expiry* x, int64_t hash, int64_t now) noexcept nogil:
    """The user stored a value under a key whose wait is open."""
    cdef uint32_t r = journal_find(x.journal, hash) if journal_samples(x.journal, hash) else NIL
    if r != NIL:
        journal_finish(x.journal, r, OUT_WRITTEN, now)

cdef inline void _expiry_note_end(Expiry* x, int64_t hash, int64_t now, int kind) noexcept nogil:
    cdef uint32_t r = journal_find(x.journal, hash) if journal_samples(x.journal, hash) else NIL
    if r == NIL:
        return
    if kind == EVICTED:
        journal_gone(x.journal, r, now, BY_CAPACITY)    # nothing, if the expiry let go of it before
    else:
        journal_finish(x.journal, r, OUT_DELETED, now)

cdef inline void expiry_note_gone(Expiry* x, uint32_t s, int64_t at) noexcept nogil:
    """The expiry lets go of an entry: for which reason, and since when."""
    cdef int64_t hash = x.arena.slots[s].hash
    cdef uint32_t r = journal_find(x.journal, hash) if journal_samples(x.journal, hash) else NIL
    cdef Decision* d
    cdef int bound
    if r == NIL:
        return
    d = &x.journal.decisions[r]
    bound = x.lives[s].bound
    if bound != BY_CEILING:
        if d.floored != INT64_MAX and at == x.lives[s].floor_:
            bound = BY_FLOOR
        elif d.refused != INT64_MAX:
            bound = BY_GUARD
    journal_gone(x.journal, r, at, bound)

cdef inline void _expiry_note_floor(Expiry* x, uint32_t s, int64_t when) noexcept nogil:
    cdef int64_t hash = x.arena.slots[s].hash
    cdef uint32_t r = journal_find(x.journal, hash) if journal_samples(x.journal, hash) else NIL
    if r != NIL and x.journal.decisions[r].floored == INT64_MAX:
        x.journal.decisions[r].floored = when
        x.journal.decisions[r].bound = BY_FLOOR

cdef inline void _expiry_note_verdict(Expiry* x, uint32_t s, int64_t when, Tracker* t, bint followed,
                                      bint refused) noexcept nogil:
    """The mixture would let go of an entry; `refused`: the guard forbade it."""
    cdef int64_t hash = x.arena.slots[s].hash
    cdef uint32_t r = journal_find(x.journal, hash) if journal_samples(x.journal, hash) else NIL
    cdef Decision* d
    if r == NIL:
        return
    d = &x.journal.decisions[r]
    if d.decided == INT64_MAX:
        d.decided = when
        if followed:
            d.x = t.x
        journal_verdict(d, t, engine_weights(x.engine, t), followed)
    if refused and d.refused == INT64_MAX:
        d.refused = when
        d.bound = BY_GUARD

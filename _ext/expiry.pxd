"""When an entry stops being held: fixed, idle, per-entry and learned deadlines on one wheel.

Works on slot numbers, like a policy, so the live cache and the simulator run this very code.
The owner of the entries calls `expiry_begin`, `expiry_hit`, `expiry_miss`, `expiry_end`, and
`expiry_due` until it says NIL; what `expiry_due` and `expiry_gone` name, the owner removes.

Two reasons to let go, never mixed up: the ceiling (the value may be wrong, or the user
said so) and reuse (nobody will want it soon enough). Only the second one can be premature, and
only the second one asks the guard.
"""
from libc.math cimport nextafterf
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset
from arena cimport Arena, NIL
from bins cimport bin_of, edge
from engine cimport (BELOW, UNFOLLOWED, Engine, Tracker, _engine_features, engine_event, engine_find, engine_follows, engine_judge,
                     engine_again, engine_salt, engine_step, engine_threshold, engine_turn, engine_weights, engine_window, mix64)
from fresh cimport (Fresh, fresh_extends, fresh_free, fresh_loaded, fresh_missed, fresh_find, fresh_init,
                    fresh_review, fresh_take)
from guard cimport (Guard, _guard_find, guard_crowded, guard_expire, guard_forgive, guard_hit, guard_init, guard_miss, guard_permits,
                    guard_prepare, guard_record, guard_score, guard_free)
from journal cimport (BY_CAPACITY, Decision, HORIZON, IDLE_HORIZON, Journal, OUT_ASKED, OUT_DELETED, OUT_WRITTEN,
                      journal_begin, journal_find, journal_finish, journal_gone, journal_samples, journal_verdict)
from record cimport Record, count_bucket, octave, record_start, record_touch
from ring cimport EVICTED, GOT, MISSED, REMOVED, STORED, Event, Ring, Touch, ring_pop, ring_push
from table cimport Table, table_first, table_next, table_tag
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

cdef struct Life:           # of an entry, beside its timer; what few caches need lies in arrays of its own (Expiry)
    Record rec
    float window            # a quarter of the break-even time at its last access, ns, rounded up
    float breakeven         # ns; 0 = waiting costs nothing
    float size
    float cost

cdef enum:
    MEMOS = 1024            # contexts whose verdicts are kept for a while; a power of two
    MEMO_BINS = 24
    FIRST_LOOK = 7          # bins below break-even at which a thread looks first at an entry that nobody follows
    MOST_SELDOM = 3
    BUSY_LOOK = 5           # the same where the entry was asked for since the last look
    STEP = 2                # bins between its looks
    IF_NEW = 2              # a touch for a key that the learner does not know
    SLICES = 512            # of a break-even time: requests within one are told together

cdef struct Memo:           # what the mixture thinks of all entries of one context
    uint64_t context
    int64_t until           # good before
    float share[MEMO_BINS]  # of the weight that holds on, by bin; < 0: not asked yet

cdef struct Expiry:
    int kind
    int64_t ttl             # FIXED, IDLE
    int64_t floor_          # LEARNED
    Wheel wheel
    Life* lives
    int64_t* ceilings       # never served at or after; NULL while no entry has one
    int64_t* floors         # never let go before, on grounds of reuse; NULL where nothing is stated
    uint32_t* freshers      # what is known of a key's changes, NIL = its validity is the user's business; NULL unless learned
    uint32_t cap
    Arena* arena            # the owner's
    Table* index
    Guard guard             # the bank of every namespace without one of its own
    Guard* banks            # of namespaces 1 .. n_banks
    uint32_t n_banks
    Engine* engine          # NULL unless LEARNED
    Ring* ring              # where events go when a learner reads them elsewhere; NULL = learn here
    Memo* memos             # NULL unless a thread learns
    int seldom              # octaves by which it looks later at entries that nobody follows, to keep pace: 0 .. MOST_SELDOM
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
    x.lives = more
    # The arrays beside it may be longer than `cap` says, never shorter.
    if (x.ceilings is not NULL or x.kind == FIXED or x.kind == ENTRY) and _expiry_beside(&x.ceilings, x.cap, cap, INT64_MAX) < 0:
        return -1
    if (x.floors is not NULL or (x.kind == LEARNED and x.floor_ > 0)) and _expiry_beside(&x.floors, x.cap, cap, -INT64_MAX) < 0:
        return -1
    if x.fresh is not NULL and _expiry_fresh_room(x, cap) < 0:
        return -1
    memset(&more[x.cap], 0, <size_t>(cap - x.cap) * sizeof(Life))
    x.cap = cap
    return 0

cdef inline int _expiry_beside(int64_t** array, uint32_t had, uint32_t cap, int64_t blank) noexcept nogil:
    cdef int64_t* more = <int64_t*>realloc(array[0], <size_t>cap * sizeof(int64_t))
    cdef uint32_t i
    if more is NULL:
        return -1
    for i in range(had if array[0] is not NULL else 0, cap):
        more[i] = blank
    array[0] = more
    return 0

cdef inline int _expiry_fresh_room(Expiry* x, uint32_t cap) noexcept nogil:
    cdef uint32_t* more = <uint32_t*>realloc(x.freshers, <size_t>cap * sizeof(uint32_t))
    cdef uint32_t i
    if more is NULL:
        return -1
    for i in range(x.cap if x.freshers is not NULL else 0, cap):
        more[i] = NIL
    x.freshers = more
    return 0

cdef inline int expiry_ceilings(Expiry* x) noexcept nogil:
    """Room for ceilings; -1 when memory is out. Before the first entry that has one."""
    if x.ceilings is not NULL or x.kind == NEVER:
        return 0
    return _expiry_beside(&x.ceilings, 0, x.cap, INT64_MAX)

cdef inline int64_t expiry_due_at(Expiry* x, uint32_t s) noexcept nogil:
    """Nothing happens to the entry before; INT64_MAX = never."""
    return x.wheel.timers[s].when

cdef inline int64_t life_ceiling(Expiry* x, uint32_t s) noexcept nogil:
    return x.ceilings[s] if x.ceilings is not NULL else INT64_MAX

cdef inline void _set_ceiling(Expiry* x, uint32_t s, int64_t ceiling) noexcept nogil:
    if x.ceilings is not NULL:
        x.ceilings[s] = ceiling

cdef inline int64_t life_floor(Expiry* x, uint32_t s) noexcept nogil:
    return x.floors[s] if x.floors is not NULL else -INT64_MAX

cdef inline uint32_t life_fresh(Expiry* x, uint32_t s) noexcept nogil:
    return x.freshers[s] if x.freshers is not NULL else NIL

cdef inline int64_t life_window(Expiry* x, const Life* l) noexcept nogil:
    """The protected window after the last access, ns: what the user stated, else a quarter of the break-even time."""
    cdef double w = x.engine.window_ns if x.engine.window_ns >= 0 else l.window
    return <int64_t>w if w < 4e18 else INT64_MAX

cdef inline int64_t later(int64_t now, int64_t by) noexcept nogil:
    """now + by, held at the end of time; INT64_MAX is for ever, from wherever it is counted."""
    if by == INT64_MAX or (by > 0 and now > INT64_MAX - by):
        return INT64_MAX
    return now + by

cdef inline void _expiry_unset(Expiry* x, uint32_t s) noexcept nogil:
    wheel_cancel(&x.wheel, s)
    x.wheel.timers[s].when = INT64_MAX

cdef inline void _expiry_set(Expiry* x, uint32_t s, int64_t when) noexcept nogil:
    if when > expiry_valid(x, s):
        when = expiry_valid(x, s)
    if when == INT64_MAX:
        _expiry_unset(x, s)
    else:
        wheel_schedule(&x.wheel, s, when)

cdef inline void _expiry_tell(Expiry* x, int64_t hash, int64_t now, int kind, const Touch* touch, uint8_t again=0,
                              int64_t before=0, const Life* life=NULL) noexcept nogil:
    """The learner hears of it: at once, or through the ring, with requests that it was not told of."""
    cdef Event* e
    if x.ring is not NULL:
        if not engine_follows(x.engine, hash):
            return
        e = ring_push(x.ring)
        e.hash = hash
        e.now = now
        e.kind = <uint8_t>kind
        e.has_touch = touch is not NULL
        e.again = again
        e.before = before
        if touch is not NULL:
            e.touch = touch[0]
        elif life is not NULL:
            # Enough to begin with, should the learner not know the key.
            e.has_touch = IF_NEW
            e.touch.size = life.size
            e.touch.cost = life.cost
            e.touch.ns = life.rec.ns
            e.touch.n_features = 0
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
    while x.engine.score_again:
        x.engine.score_again -= 1
        guard_score(expiry_bank(x, x.engine.score_ns), x.engine.score_at_once)
    for i in range(x.engine.n_pokes):
        hash = x.engine.pokes[i].hash
        tag = table_tag(x.index, hash)
        s = table_first(x.index, tag, &at)
        while s != NIL:
            if x.arena.slots[s].hash == hash:
                when = x.engine.pokes[i].at
                if when == UNFOLLOWED:
                    # Nobody speaks for the entry any more: it looks after itself.
                    when = _expiry_first(x, &x.lives[s])
                if when >= x.lives[s].rec.last and when < expiry_due_at(x, s):
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
        if e.again:
            engine_again(x.engine, e.hash, e.before, e.again)
        engine_event(x.engine, e.hash, e.now, e.kind,
                     &e.touch if e.has_touch and (e.has_touch != IF_NEW or engine_find(x.engine, e.hash) == NIL) else NULL)
        _expiry_heard(x)

cdef inline void _expiry_price(Expiry* x, Life* l) noexcept nogil:
    """Break-even time and protected window, at today's price of memory.

    An entry whose break-even time is nought or for ever is never let go, but its window is what was
    promised all the same: a request beyond it must not earn credit.
    """
    cdef double rent = <double>l.size * x.engine.price, b, w
    b = l.cost / rent if rent > 0 else 1e300
    w = engine_window(x.engine, b)
    # Rounded up: what is promised is at least a quarter.
    l.window = <float>w if w < 4e18 else <float>9.3e18
    if <double>l.window < w and w < 4e18:
        l.window = nextafterf(l.window, <float>1e19)
    l.breakeven = <float>b if 2 <= b < 4e18 else 0
    l.rec.cost_class = <uint8_t>(octave(b / SLICES) - 64) if b >= SLICES and l.breakeven > 0 else 0

cdef inline int64_t _expiry_snapped(Expiry* x, const Life* l, int64_t when) noexcept nogil:
    """A little later, at a round time: a timer of many low digits moves through all levels of the wheel."""
    cdef int64_t mask = (<int64_t>1 << (l.rec.cost_class + 3 if l.rec.cost_class else 0)) - 1
    return when if when > INT64_MAX - mask or when < x.wheel.base else ((when - x.wheel.base + mask) & ~mask) + x.wheel.base

cdef inline int64_t _expiry_first(Expiry* x, Life* l) noexcept nogil:
    """When to look at the entry first, after an access: the engine pokes it earlier if need be."""
    cdef int at
    if l.breakeven <= 0:
        return INT64_MAX
    at = bin_of(<int64_t>l.breakeven)
    if x.memos is not NULL:
        at += 2 * x.seldom
        return _expiry_snapped(x, l, later(l.rec.last, edge((at - FIRST_LOOK if at > FIRST_LOOK else 0) + 1)))
    return later(l.rec.last, edge((at - BELOW if at > BELOW else 0) + 1))

cdef inline int64_t _expiry_next(Expiry* x, Life* l, int j) noexcept nogil:
    """When to look again at an entry that nobody follows, and that is in bin `j`."""
    if x.memos is not NULL:
        return _expiry_snapped(x, l, later(l.rec.last, edge(j + STEP)))
    return later(l.rec.last, edge(j + 1))

cdef inline int expiry_threaded(Expiry* x) noexcept nogil:
    """A thread learns from here on; -1 when memory is out."""
    x.memos = <Memo*>calloc(MEMOS, sizeof(Memo))
    return -1 if x.memos is NULL else 0

cdef inline Memo* _expiry_memo(Expiry* x, Life* l, int64_t now, int* place) noexcept nogil:
    """The memo of the entry's context, blank if it is new or too old. `place`: the bin that its first share is of.

    With ten thousands of entries that nobody follows, a verdict on each at each look is more than a thread may
    spend; entries of one context differ in their thresholds only.
    """
    cdef int at = bin_of(<int64_t>l.breakeven), i
    cdef uint64_t context = 1 + (<uint64_t>l.rec.ns << 40 | <uint64_t>at << 32 | <uint64_t>l.rec.gap1 << 16
                                 | <uint64_t>engine_turn(&l.rec) << 8 | <uint64_t>count_bucket(l.rec.count))
    cdef Memo* m = &x.memos[mix64(context) & (MEMOS - 1)]
    place[0] = at - BELOW if at > BELOW else 0
    if m.context != context or now >= m.until:
        m.context = context
        m.until = later(now, <int64_t>(l.breakeven / 64))
        for i in range(MEMO_BINS):
            m.share[i] = -1
    return m

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
    cdef uint8_t again = l.rec.size_class if overwrite and x.kind == LEARNED else 0
    cdef int64_t before = l.rec.last
    _set_ceiling(x, s, ceiling)
    if overwrite:
        record_touch(&l.rec, now)
    else:
        record_start(&l.rec, now, 1, 1, 0)
    l.rec.bound = BY_CEILING
    if x.kind == FIXED:
        _set_ceiling(x, s, later(now, x.ttl) if later(now, x.ttl) < ceiling else ceiling)
        _expiry_set(x, s, INT64_MAX)
    elif x.kind == IDLE:
        l.rec.bound = BY_IDLE
        _expiry_set(x, s, later(now, x.ttl))
    elif x.kind == ENTRY:
        _expiry_set(x, s, ceiling)
    else:
        l.size = <float>touch.size
        l.cost = <float>touch.cost
        l.rec.ns = touch.ns
        l.rec.size_class = 0
        if x.floors is not NULL:
            x.floors[s] = later(now, x.floor_)
        l.rec.bound = BY_MIXTURE
        _expiry_price(x, l)
        _expiry_set(x, s, _expiry_first(x, l))
        _expiry_tell(x, hash, now, STORED, touch, again, before)
        if x.journal is not NULL:
            expiry_note_written(x, hash, now)
            _expiry_note_access(x, s, now, touch)

cdef inline void expiry_hit(Expiry* x, uint32_t s, int64_t now, const Touch* touch) noexcept nogil:
    """A request found the entry. `touch` may be NULL."""
    cdef Life* l = &x.lives[s]
    cdef int64_t before = l.rec.last
    cdef uint8_t again = 0
    cdef bint told = True
    if x.kind == LEARNED:
        if now - before <= life_window(x, l):
            guard_hit(expiry_bank(x, l.rec.ns))
        record_touch(&l.rec, now)
        l.rec.bound = BY_MIXTURE
        if x.ring is NULL:
            if touch is not NULL:
                l.size = <float>touch.size
                if touch.cost >= 0:
                    l.cost = <float>touch.cost
                l.rec.ns = touch.ns
            _expiry_price(x, l)
        elif (now ^ before) >> l.rec.cost_class == 0 and l.rec.size_class < 255 \
                and (touch is NULL or (touch.n_features == 0 and touch.ns == l.rec.ns)):
            # Of a key that is asked for time and again in no time, the learner hears once, with their number.
            l.rec.size_class += 1
            told = False
        else:
            again = l.rec.size_class
            l.rec.size_class = 0
        if told:
            _expiry_tell(x, x.arena.slots[s].hash, now, GOT, touch, again, before, l)
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
    _expiry_unset(x, s)
    if x.fresh is not NULL:
        _expiry_detach(x, s)
    if x.kind == LEARNED:
        _expiry_tell(x, x.arena.slots[s].hash, now, kind, NULL, x.lives[s].rec.size_class, x.lives[s].rec.last)
        x.lives[s].rec.size_class = 0
        if x.journal is not NULL:
            _expiry_note_end(x, x.arena.slots[s].hash, now, kind)

# -- learned validity: see fresh.pxd ----------------------------------------------------

cdef inline void _expiry_detach(Expiry* x, uint32_t s) noexcept nogil:
    if x.freshers[s] != NIL:
        x.fresh.keys[x.freshers[s]].held = False
        x.freshers[s] = NIL

cdef inline bint expiry_parts(Expiry* x, int64_t hash, uint32_t s) noexcept nogil:
    """Will a value of this hash, in slot `s` (NIL: a new one), take the record from another key's? Ceilings are needed then."""
    cdef uint32_t r = fresh_find(x.fresh, hash)
    return r != NIL and x.fresh.keys[r].held and (s == NIL or x.freshers[s] != r)

cdef inline void _expiry_part(Expiry* x, uint32_t r) noexcept nogil:
    """A record speaks of one value, and another key of its hash had it: that one's stays valid for as long as it was."""
    cdef uint32_t at = 0, tag = table_tag(x.index, x.fresh.keys[r].hash), t = table_first(x.index, tag, &at)
    while t != NIL and x.freshers[t] != r:
        t = table_next(x.index, tag, &at)
    if t != NIL:
        _set_ceiling(x, t, expiry_valid(x, t))
        _expiry_detach(x, t)

cdef inline void expiry_fresh(Expiry* x, uint32_t s, int64_t now, uint16_t ns, bint declared, bint known,
                              uint64_t digest) noexcept nogil:
    """Before `expiry_begin` or `expiry_renew`: a value of this digest comes into slot `s`.

    declared: the user said how long it is valid, so nothing is learned of it.
    """
    cdef uint32_t r
    if declared:
        _expiry_detach(x, s)
        return
    r = fresh_take(x.fresh, x.arena.slots[s].hash)
    if r != x.freshers[s]:
        _expiry_detach(x, s)
        if r != NIL:
            if x.fresh.keys[r].held:
                _expiry_part(x, r)
            x.fresh.keys[r].held = True
            x.freshers[s] = r
    if r != NIL:
        fresh_loaded(x.fresh, r, now, ns, known, digest)

cdef inline void expiry_review(Expiry* x, uint32_t s, int64_t now) noexcept nogil:
    """Before a request that finds slot `s`: its learned validity by today's price, which may be less than it was."""
    cdef uint32_t r = life_fresh(x, s)
    if r == NIL:
        return
    fresh_review(x.fresh, r, now)
    if x.fresh.keys[r].due < expiry_due_at(x, s):
        _expiry_set(x, s, expiry_due_at(x, s))

cdef inline void expiry_renew(Expiry* x, uint32_t s, int64_t now, int64_t ceiling) noexcept nogil:
    """The value in slot `s` was reloaded behind the requests' back: no access, but a new ceiling and validity."""
    cdef Life* l = &x.lives[s]
    _set_ceiling(x, s, ceiling)
    if x.floors is not NULL:
        x.floors[s] = later(now, x.floor_)
    _expiry_price(x, l)
    _expiry_set(x, s, _expiry_first(x, l))

cdef inline int64_t expiry_valid(Expiry* x, uint32_t s) noexcept nogil:
    """Never served from here on: the ceiling, or the end of the learned validity."""
    cdef int64_t at = life_ceiling(x, s)
    cdef uint32_t r = life_fresh(x, s)
    return x.fresh.keys[r].due if r != NIL and x.fresh.keys[r].due < at else at

cdef inline bint expiry_gone(Expiry* x, uint32_t s, int64_t now, int64_t* at) noexcept nogil:
    """Is the entry to be let go by `now`? If so `at` says since when; else its timer is set anew."""
    if not _expiry_over(x, s, now, at):
        return False
    _expiry_unset(x, s)
    if x.journal is not NULL:
        expiry_note_gone(x, s, at[0])
    return True

cdef inline bint _expiry_same(const Life* l, const Tracker* t) noexcept nogil:
    """Does the learner know of the entry's last access, or will it not be told apart from the one that it knows of?"""
    return t.rec.last == l.rec.last or (l.rec.size_class > 0 and (t.rec.last ^ l.rec.last) >> l.rec.cost_class == 0)

cdef inline bint _expiry_over(Expiry* x, uint32_t s, int64_t now, int64_t* at) noexcept nogil:
    cdef Life* l = &x.lives[s]
    cdef Tracker judged
    cdef Tracker* t
    cdef Guard* bank
    cdef uint32_t r
    cdef int64_t when = expiry_due_at(x, s), ceiling = life_ceiling(x, s), window, age, hash
    cdef uint32_t known = life_fresh(x, s)
    cdef Memo* memo = NULL
    cdef int i = -1, place = 0
    cdef int j
    if when > now:
        return False
    if ceiling <= when:
        at[0] = ceiling
        l.rec.bound = BY_CEILING
        return True
    if known != NIL and x.fresh.keys[known].due <= now:
        if not fresh_extends(x.fresh, known, now):
            at[0] = x.fresh.keys[known].due
            l.rec.bound = BY_FRESHNESS
            if ceiling < at[0]:
                at[0] = ceiling
            return True
        if x.ring is not NULL:
            # Verdicts on reuse are the thread's.
            _expiry_set(x, s, INT64_MAX if l.breakeven <= 0 else later(now, 1))
            return _expiry_over(x, s, now, at) if expiry_due_at(x, s) <= now else False     # the ceiling may have passed, too
    if x.kind == IDLE:
        if later(l.rec.last, x.ttl) <= now:
            at[0] = later(l.rec.last, x.ttl)
            if ceiling < at[0]:
                at[0] = ceiling
            return True
        _expiry_set(x, s, later(l.rec.last, x.ttl))
        if ceiling <= now:
            at[0] = ceiling
            return True
        return False
    if x.kind != LEARNED:
        at[0] = when
        return True
    # The ceiling decides over everything once it has passed, even if this timer was earlier.
    if l.breakeven <= 0:
        _expiry_set(x, s, INT64_MAX)
        return _expiry_over(x, s, now, at)
    if when < l.rec.last:
        # Where a thread looks, it looks less often at what is asked for time and again.
        _expiry_set(x, s, _expiry_first(x, l) if x.memos is NULL or BUSY_LOOK >= bin_of(<int64_t>l.breakeven) else
                    _expiry_snapped(x, l, later(l.rec.last, edge(bin_of(<int64_t>l.breakeven) + 2 * x.seldom - BUSY_LOOK + 1))))
        return _expiry_over(x, s, now, at)
    if when < life_floor(x, s):
        l.rec.bound = BY_FLOOR
        if x.journal is not NULL:
            _expiry_note_floor(x, s, when)
        _expiry_set(x, s, life_floor(x, s))
        return _expiry_over(x, s, now, at)
    hash = x.arena.slots[s].hash
    age = when - l.rec.last
    window = life_window(x, l)
    r = engine_find(x.engine, hash)
    t = NULL
    if r != NIL:
        t = &x.engine.trackers[r]
        if not _expiry_same(l, t) or not (t.open_ or not t.hold):
            t = NULL
    if t is not NULL:
        j = -1
    else:
        j = bin_of(age)
        if x.memos is not NULL and x.engine.only < 0:
            memo = _expiry_memo(x, l, now, &place)
            i = j - place
            if 0 <= i < MEMO_BINS and memo.share[i] > engine_threshold(engine_salt(x.engine, hash, l.rec.last)):
                l.rec.bound = BY_MIXTURE
                _expiry_set(x, s, _expiry_next(x, l, j))
                return _expiry_over(x, s, now, at)
        engine_judge(x.engine, &l.rec, l.breakeven, window, age, hash, &judged)
        if memo is not NULL and 0 <= i < MEMO_BINS and edge(judged.top) > age:
            memo.share[i] = <float>x.engine.share
        t = &judged
    if t.hold:
        l.rec.bound = BY_MIXTURE
        if j < 0:
            # The engine follows this key and will say when to look again.
            _expiry_set(x, s, INT64_MAX)
        else:
            _expiry_set(x, s, _expiry_next(x, l, j))
        return _expiry_over(x, s, now, at)
    if age <= window:
        bank = expiry_bank(x, l.rec.ns)
        guard_expire(bank, when)
        if guard_prepare(bank) < 0 or guard_crowded(bank, hash) or not guard_permits(bank, t.ratio, t.back, l.size):
            l.rec.bound = BY_GUARD
            if x.journal is not NULL:
                _expiry_note_verdict(x, s, when, t, j < 0, True)
            # Held to the end of its window, or until credit is there at the next look.
            when = later(later(l.rec.last, window), 1)
            if j >= 0 and _expiry_next(x, l, j) < when:
                when = _expiry_next(x, l, j)
            _expiry_set(x, s, when)
            return _expiry_over(x, s, now, at)
        # A request from the ceiling on, or the end of its validity, would not have found the entry anyway.
        x.until = later(l.rec.last, window)
        if x.until >= expiry_valid(x, s):
            x.until = expiry_valid(x, s) - 1
        guard_record(bank, hash, x.until, t.back)
        x.early += 1
    l.rec.bound = BY_MIXTURE
    if x.journal is not NULL:
        _expiry_note_verdict(x, s, when, t, j < 0, False)
    at[0] = when
    return True

cdef inline int expiry_learn_fresh(Expiry* x, double p, uint64_t seed, uint32_t most) noexcept nogil:
    """Learn validities from here on, for a budget of p of all reads; -1 when memory is out."""
    x.fresh = <Fresh*>malloc(sizeof(Fresh))
    if x.fresh is NULL or fresh_init(x.fresh, p, seed, most) < 0:
        return -1
    return _expiry_fresh_room(x, x.cap if x.cap else 1)

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
    free(x.ceilings)
    free(x.floors)
    free(x.freshers)
    free(x.memos)
    x.memos = NULL
    x.lives = NULL
    x.ceilings = NULL
    x.floors = NULL
    x.freshers = NULL
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
    `touch` (may be NULL) in place of what the learner knows of it. So is one whose tracker waits for nothing: the
    tracker last heard of another key of the same hash, for which waiting costs nothing.
    """
    cdef Life* l = &x.lives[s]
    cdef int64_t hash = x.arena.slots[s].hash
    cdef uint32_t r = engine_find(x.engine, hash)
    if r != NIL and (l.breakeven <= 0 or (x.engine.trackers[r].breakeven > 0 and _expiry_same(l, &x.engine.trackers[r]))):
        t[0] = x.engine.trackers[r]
        return True
    memset(t, 0, sizeof(Tracker))
    if l.breakeven <= 0:
        return False
    engine_judge(x.engine, &l.rec, l.breakeven, life_window(x, l), now - l.rec.last, hash, t)
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
    d.window = life_window(x, l)
    d.ceiling = life_ceiling(x, s)
    d.breakeven = l.breakeven
    # Money is counted at the price that was stated: pressure on capacity changes decisions, not what memory costs.
    d.price = x.engine.stated if x.engine.stated > 0 else x.engine.price
    d.size = l.size
    d.cost = l.cost
    d.ns = l.rec.ns
    d.count = l.rec.count
    horizon = HORIZON * <double>l.cost / (<double>l.size * d.price) if l.breakeven > 0 else IDLE_HORIZON * 1e9
    if l.breakeven > 0 and <double>d.window > horizon:
        horizon = <double>d.window      # so that what is premature is always seen
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
    bound = x.lives[s].rec.bound
    if bound != BY_CEILING:
        if d.floored != INT64_MAX and at == life_floor(x, s):
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

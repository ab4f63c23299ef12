"""The journal: waits of sampled keys, from an access until it is known what came of it.

One `Decision` a wait: what was known and expected when it began, when the mixture first would have let go,
whether the guard or the floor forbade that, when the value left and why, and in the end the outcome: asked again,
overwritten, deleted, or nobody came within the horizon. Finished ones queue up until someone takes them to
disk; a decision never leaves half told, so no reader has to join anything.

Keys are sampled by salted hash, so the histories of those that are in are whole. Memory is bounded: where open
waits fill the journal, half of the sampled keys are let go of, again by hash; where whoever writes lags behind,
new waits are not begun and `dropped` counts them. The journal decides nothing and nothing reads it back.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from arena cimport Arena, NIL, arena_free, arena_give, arena_init, arena_reserve, arena_take
from engine cimport Tracker, mix64
from flat cimport FEATURES
from hedge cimport EXPERTS
from ilist cimport IList, ilist_push_front, ilist_unlink
from table cimport (Table, table_first, table_free, table_init, table_insert, table_next, table_remove,
                    table_reserve, table_tag)
from wheel cimport Wheel, wheel_cancel, wheel_free, wheel_init, wheel_pop, wheel_reserve, wheel_schedule

cdef enum Outcome:
    OUT_OPEN = 0            # not known when the journal was closed
    OUT_ASKED = 1
    OUT_NEVER = 2           # nobody came within the horizon
    OUT_WRITTEN = 3         # a value was stored under the key
    OUT_DELETED = 4

cdef enum:
    BY_CAPACITY = 15        # beside the expiry's bounds
    HORIZON = 8             # break-even times after which nobody is waited for any more
    IDLE_HORIZON = 3600     # seconds, where there is no break-even time

cdef struct Decision:        # INT64_MAX: a time that has not come
    int64_t hash
    int64_t last            # the access that it begins with
    int64_t decided         # when the mixture first would let go
    int64_t refused         # when the guard first forbade that
    int64_t floored         # when the floor first did
    int64_t gone            # when the value left
    int64_t ended           # when the outcome was known
    int64_t window          # ns, INT64_MAX = for ever
    int64_t horizon         # ns
    int64_t ceiling
    double breakeven        # ns; 0 = waiting costs nothing
    double price            # per unit of size and ns
    uint64_t id
    uint64_t holding        # bit e: expert e would hold on
    float weight[EXPERTS]
    float x[FEATURES]
    float size
    float cost
    float back
    float ratio
    uint16_t ns
    uint8_t count
    uint8_t has_verdict
    uint8_t hold
    uint8_t followed        # the verdict is that of a key whose every access is followed
    uint8_t bound
    uint8_t outcome
    uint8_t found
    uint8_t premature

cdef struct Journal:
    uint64_t salt
    uint64_t sample         # mixed hashes above are not kept
    uint32_t capacity
    Arena arena             # of open and of finished decisions
    Table index             # open ones, by hash
    Wheel wheel             # horizons of open ones whose value has left
    IList open_
    IList done              # oldest at the tail
    Decision* decisions
    uint32_t cap
    uint64_t serial
    uint64_t dropped        # waits that were not begun for want of room

cdef inline int journal_init(Journal* j, double sample, uint64_t salt, uint32_t capacity, int64_t now) noexcept nogil:
    memset(j, 0, sizeof(Journal))
    j.salt = salt
    j.sample = <uint64_t>(sample * 18446744073709549568.0) if sample < 1 else <uint64_t>0xFFFFFFFFFFFFFFFF
    j.capacity = capacity
    wheel_init(&j.wheel, now)
    if arena_init(&j.arena, 64) < 0 or table_init(&j.index, 64) < 0:
        return -1
    return 0

cdef inline void journal_free(Journal* j) noexcept nogil:
    arena_free(&j.arena)
    table_free(&j.index)
    wheel_free(&j.wheel)
    free(j.decisions)
    j.decisions = NULL

cdef inline bint journal_samples(Journal* j, int64_t hash) noexcept nogil:
    return mix64(mix64(<uint64_t>hash ^ j.salt) + j.salt) <= j.sample

cdef inline uint32_t journal_find(Journal* j, int64_t hash) noexcept nogil:
    """The open wait of a key, or NIL."""
    cdef uint32_t at = 0, tag = table_tag(&j.index, hash)
    cdef uint32_t s = table_first(&j.index, tag, &at)
    while s != NIL and j.arena.slots[s].hash != hash:
        s = table_next(&j.index, tag, &at)
    return s

cdef inline void _journal_close(Journal* j, uint32_t s) noexcept nogil:
    wheel_cancel(&j.wheel, s)
    table_remove(&j.index, j.arena.slots[s].hash, s)
    ilist_unlink(&j.arena, &j.open_, s)

cdef inline void journal_finish(Journal* j, uint32_t s, int outcome, int64_t now) noexcept nogil:
    """It is known what came of a wait. Past its horizon, with the value gone, that is that nobody came."""
    cdef Decision* d = &j.decisions[s]
    if d.gone != INT64_MAX and now - d.last > d.horizon:
        outcome = OUT_NEVER
        now = d.last + d.horizon
        if now < d.gone:
            now = d.gone
    d.outcome = <uint8_t>outcome
    d.ended = now
    _journal_close(j, s)
    ilist_push_front(&j.arena, &j.done, s)

cdef inline void journal_give(Journal* j, uint32_t s) noexcept nogil:
    """A finished decision has been taken over."""
    ilist_unlink(&j.arena, &j.done, s)
    arena_give(&j.arena, s)

cdef inline void _journal_thin(Journal* j) noexcept nogil:
    cdef uint32_t s
    j.sample >>= 1
    for s in range(1, j.arena.top):
        # Finished ones stay: they are not in the index any more, and their story is whole.
        if j.arena.slots[s].used and j.decisions[s].outcome == OUT_OPEN and j.decisions[s].ended == INT64_MAX \
                and not journal_samples(j, j.arena.slots[s].hash):
            _journal_close(j, s)
            arena_give(&j.arena, s)

cdef inline uint32_t journal_begin(Journal* j, int64_t hash, int64_t now) noexcept nogil:
    """A new wait of a sampled key, blank but for its times; NIL when there is no room."""
    cdef uint32_t s, cap
    cdef Decision* more
    cdef Decision* d
    if j.arena.n >= j.capacity:
        if j.open_.n > j.capacity // 2:
            _journal_thin(j)
        if j.arena.n >= j.capacity or not journal_samples(j, hash):
            j.dropped += 1
            return NIL
    if j.arena.free_head == NIL and j.arena.top >= j.arena.cap and arena_reserve(&j.arena, j.arena.cap * 2) < 0:
        j.dropped += 1
        return NIL
    if j.cap < j.arena.cap:
        cap = j.arena.cap
        more = <Decision*>realloc(j.decisions, <size_t>cap * sizeof(Decision))
        if more is NULL:
            j.dropped += 1
            return NIL
        j.decisions = more
        j.cap = cap
    if wheel_reserve(&j.wheel, j.arena.cap) < 0 or table_reserve(&j.index) < 0:
        j.dropped += 1
        return NIL
    s = arena_take(&j.arena)
    j.arena.slots[s].hash = hash
    table_insert(&j.index, hash, s)
    ilist_push_front(&j.arena, &j.open_, s)
    d = &j.decisions[s]
    memset(d, 0, sizeof(Decision))
    j.serial += 1
    d.id = j.serial
    d.hash = hash
    d.last = now
    d.decided = d.refused = d.floored = d.gone = d.ended = INT64_MAX
    return s

cdef inline void journal_verdict(Decision* d, const Tracker* t, const double* weight, bint followed) noexcept nogil:
    """What the experts say, for a wait that has a break-even time."""
    cdef int e
    d.has_verdict = 1
    d.hold = t.hold
    d.back = t.back
    d.ratio = t.ratio
    d.holding = t.holding
    d.followed = followed
    for e in range(EXPERTS):
        d.weight[e] = <float>weight[e]

cdef inline void journal_gone(Journal* j, uint32_t s, int64_t at, int bound) noexcept nogil:
    """The value left; the wait goes on until somebody asks, or the horizon."""
    cdef Decision* d = &j.decisions[s]
    if d.gone != INT64_MAX:
        return
    d.gone = at
    d.bound = <uint8_t>bound
    if at - d.last > d.horizon:
        journal_finish(j, s, OUT_NEVER, at)
    elif d.horizon < INT64_MAX - d.last:
        wheel_schedule(&j.wheel, s, d.last + d.horizon + 1)

cdef inline void journal_sweep(Journal* j, int64_t now) noexcept nogil:
    """Finish the waits whose horizon has passed."""
    cdef uint32_t s
    while True:
        s = wheel_pop(&j.wheel, now)
        if s == NIL:
            return
        journal_finish(j, s, OUT_NEVER, now)

cdef inline void journal_finish_all(Journal* j, int outcome, int64_t now) noexcept nogil:
    while j.open_.tail != NIL:
        journal_finish(j, j.open_.tail, outcome, now)

"""Adaptive: who promises least leaves, by what was learned of entries like it.

A request leaves eight bytes with its entry (when, how often, after what gap) and touches nothing else, unless its key
is in the sample that `trials` learns from. For a victim a hand moves on by eight slots, a cache line; who is worth least of each half, and the worst
of those that it passed before, which are kept in a pool (as Redis does for its sampled LRU), are ranked by the value of their kind at
their age (`density`), by their weight where entries have one. What comes in takes the slot of what left, behind the hand.

The newcomer before this one has to be worth more than the least of them, or it leaves in their place. Where what is asked for goes
round in circles that do not fit, it pays to be stricter and to let in only what was asked for a third time: `trials` finds out
which of the two has more hits. Both rank what is there, so that a change costs no rebuilding.

What left is remembered by hash, in cells of eight bytes: how often it was asked for, and when. Memory that will be wanted is asked for
ahead of time: most of what a victim costs is waiting for it.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset
from arena cimport Arena, NIL
from density cimport AGES, age_bin, bin_of, gap_class, kind_of
from engine cimport mix64
from policy cimport Policy, policy_answers, policy_room
from trials cimport (STRICT, WAYS, Trials, refused, trials_clear, trials_free, trials_hear, trials_init, trials_mixed,
                     trials_reserve, trials_scale, trials_sound, trials_spend)

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define adaptcache_prefetch(p) __builtin_prefetch(p)
    #else
    #define adaptcache_prefetch(p) ((void)(p))
    #endif
    """
    void prefetch "adaptcache_prefetch"(const void*) noexcept nogil

cdef enum:
    POOL = 16               # the worst of those that were looked at,
    PART = 8                # and no more than this part of the residents
    LOOKED = 8              # slots that the hand passes for a victim: a cache line of metas
    NOBODY = 88             # the kind of a slot that is free
    CELLS = 8               # of ghosts, to a cache line
    GHOSTS = 3              # to an entry
    KNOWN = 15              # requests that a ghost can tell apart

cdef struct Meta:           # of an entry
    uint32_t tick           # of its last request
    uint8_t count           # of its requests, at most 255
    uint8_t kind

cdef struct Ghost:
    uint32_t tag            # 28 bits of the hash and 4 of the count; 0: empty
    uint32_t tick

cdef struct Seen:           # in the pool
    uint32_t slot
    uint32_t tick           # of its last request when it was looked at
    float worth

cdef struct Adaptive:
    Trials trials
    Meta* metas
    Ghost* ghosts
    uint32_t room           # of metas
    uint32_t buckets        # of ghosts
    uint32_t now            # requests so far
    uint32_t latest         # the newcomer that was let in last
    bint coming             # somebody is, so victims make room
    Seen pool[POOL]         # the least worth last
    uint32_t n_pool
    uint32_t hand           # the first of the slots that were looked at last

cdef inline Ghost* _ghost_cells(Adaptive* t, uint64_t h) noexcept nogil:
    return t.ghosts + <size_t>(((h & 0xFFFFFFFFu) * t.buckets) >> 32) * CELLS

cdef inline void _ghost_put(Adaptive* t, uint64_t h, uint32_t count, uint32_t tick) noexcept nogil:
    """In a free cell, or in that of who left the longest ago."""
    cdef uint32_t i, at = 0, age, most = 0
    cdef Ghost* g = _ghost_cells(t, h)
    for i in range(CELLS):
        age = t.now - g[i].tick if g[i].tag else <uint32_t>-1
        at = i if age > most else at
        most = age if age > most else most
    g[at].tag = (<uint32_t>(h >> 32) & 0xFFFFFFF0u) | (count if count < KNOWN else KNOWN)
    g[at].tick = tick

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    prefetch(_ghost_cells(t, trials_mixed(&t.trials, hash)))
    t.coming = True

cdef inline void _seen(Policy* p, uint32_t s, uint64_t h, uint32_t count, int gap) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef Meta* m = &t.metas[s]
    m.tick = t.now
    m.count = <uint8_t>(count if count < 255 else 255)
    m.kind = kind_of(count, gap)
    # (Where there is no bound nobody has to leave, and there is nothing to learn.)
    if p.capacity < INFINITY:
        trials_hear(&t.trials, h, m.kind, count, t.now)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint64_t h = trials_mixed(&t.trials, a.slots[s].hash)
    cdef uint32_t count = 1, i, at = CELLS
    cdef int gap = 0
    cdef Ghost* g = _ghost_cells(t, h)
    t.now += 1
    for i in range(CELLS):
        # (A free cell knows of no request.)
        at = i if (g[i].tag ^ <uint32_t>(h >> 32)) < 16 and g[i].tag & KNOWN else at
    if at < CELLS:
        count += g[at].tag & KNOWN
        gap = gap_class(&t.trials.density, t.now - g[at].tick)
        g[at].tag = 0
    _seen(p, s, h, count, gap)
    t.latest = s
    t.coming = False

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    t.now += 1
    _seen(p, s, trials_mixed(&t.trials, a.slots[s].hash), t.metas[s].count + <uint32_t>1,
          gap_class(&t.trials.density, t.now - t.metas[s].tick))

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    t.metas[s].kind = NOBODY
    if t.latest == s:
        t.latest = NIL
    _ghost_put(t, trials_mixed(&t.trials, a.slots[s].hash), t.metas[s].count, t.metas[s].tick)

cdef inline float _worth(Policy* p, Adaptive* t, uint32_t s, uint32_t age) noexcept nogil:
    cdef float v
    v = t.trials.density.value[t.metas[s].kind * AGES + age_bin(&t.trials.density, age)]
    return v if p.weights is NULL or p.weights[s] <= 0 else <float>(v / p.weights[s])

cdef inline void _keep(Adaptive* t, uint32_t room, uint32_t slot, uint32_t tick, float worth) noexcept nogil:
    """Into the pool, which is in order, the least last; when it is full, in place of the one who is worth most."""
    cdef uint32_t i = t.n_pool
    if i < room:
        t.n_pool += 1
        while i > 0 and t.pool[i - 1].worth <= worth:
            t.pool[i] = t.pool[i - 1]
            i -= 1
    else:
        i = 0
        while i + 1 < room and t.pool[i + 1].worth > worth:
            t.pool[i] = t.pool[i + 1]
            i += 1
    t.pool[i].slot = slot
    t.pool[i].tick = tick
    t.pool[i].worth = worth

cdef inline bint _look(Policy* p, Arena* a, Adaptive* t, uint32_t room) noexcept nogil:
    """The hand moves on by a few slots; into the pool goes the least of each half, if it is worth less than somebody there.

    False: there is nobody, or nobody whose worth has an end.
    """
    cdef uint32_t s = t.hand + LOOKED if t.hand + LOOKED < a.top else 0, now = t.now, i, k, least
    cdef uint32_t age[LOOKED]
    cdef int cell[LOOKED]
    cdef float worth[LOOKED]
    cdef float scale = t.trials.density.scale
    cdef const Meta* m = &t.metas[s]
    cdef bint somebody = False
    t.hand = s
    for i in range(LOOKED):
        age[i] = now - m[i].tick
        cell[i] = m[i].kind
    for i in range(LOOKED):
        worth[i] = t.trials.density.value[cell[i] * AGES + bin_of(age[i], scale)]
    if p.weights is not NULL:
        for i in range(LOOKED):
            if s + i < a.top and p.weights[s + i] > 0:
                worth[i] = <float>(worth[i] / p.weights[s + i])
    for k in range(0, LOOKED, 4):
        i = k if worth[k] < worth[k + 1] else k + 1
        least = k + 2 if worth[k + 2] < worth[k + 3] else k + 3
        least = i if worth[i] < worth[least] else least
        if worth[least] < (t.pool[0].worth if t.n_pool == room else INFINITY):
            _keep(t, room, s + least, m[least].tick, worth[least])
        somebody = somebody or worth[least] < INFINITY
    return somebody

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """By slot."""
    s += 1
    while s < a.top:
        if a.slots[s].used:
            return s
        s += 1
    return NIL

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t s = NIL, newcomer = t.latest
    cdef uint32_t room = 1 if a.n < 2 * PART else a.n // PART if a.n < PART * POOL else POOL, groups = a.top // LOOKED
    cdef float least
    if a.n == 0:
        return NIL
    # What is full now is as large as it is, whatever it was meant to be: weights say nothing of that.
    if t.coming:
        t.coming = False
        if a.n > 2 * t.trials.entries or 2 * a.n < t.trials.entries:
            trials_scale(&t.trials, a.n)
    if t.n_pool:
        prefetch(_ghost_cells(t, trials_mixed(&t.trials, a.slots[t.pool[t.n_pool - 1].slot].hash)))
    if t.n_pool > room:
        memmove(t.pool, t.pool + (t.n_pool - room), room * sizeof(Seen))
        t.n_pool = room
    # (After a cut to a small part of what a cache was, most slots are free.)
    while not _look(p, a, t, room) and groups > 0:
        groups -= 1
    # Who was asked for since it was looked at, or has left, is not meant.
    while t.n_pool:
        s = t.pool[t.n_pool - 1].slot
        if t.metas[s].kind != NOBODY and t.metas[s].tick == t.pool[t.n_pool - 1].tick:
            least = t.pool[t.n_pool - 1].worth
            break
        t.n_pool -= 1
    else:
        s = after(p, a, t.hand)
        if s == NIL:
            s = after(p, a, NIL)
        least = _worth(p, t, s, t.now - t.metas[s].tick)
    p.promise = <double>least * t.trials.density.scale
    if newcomer != NIL and newcomer != s \
            and refused(t.trials.way, t.metas[newcomer].count, _worth(p, t, newcomer, t.now - t.metas[newcomer].tick), least):
        return newcomer
    if t.n_pool:
        t.n_pool -= 1
    if t.n_pool:
        prefetch(&t.metas[t.pool[t.n_pool - 1].slot])
        prefetch(&a.slots[t.pool[t.n_pool - 1].slot])
    return s

cdef inline int reserve(Policy* p, uint32_t slots) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t buckets = <uint32_t>(<uint64_t>slots * GHOSTS // CELLS) + 1
    cdef Ghost* more
    if trials_reserve(&t.trials, slots) < 0:
        return -1
    slots = (slots + LOOKED) // LOOKED * LOOKED
    if slots > t.room:
        if policy_room(<void**>&t.metas, <size_t>slots * sizeof(Meta)) < 0:
            return -1
        memset(t.metas + t.room, NOBODY, (slots - t.room) * sizeof(Meta))
        t.room = slots
    if buckets > t.buckets:
        # What grows has not let anybody go for a while: there is little to remember, and it is forgotten.
        more = <Ghost*>calloc(<size_t>buckets * CELLS, sizeof(Ghost))
        if more is NULL:
            return -1
        free(t.ghosts)
        t.ghosts = more
        t.buckets = buckets
    return 0

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    memset(t.ghosts, 0, <size_t>t.buckets * CELLS * sizeof(Ghost))
    memset(t.metas, NOBODY, t.room * sizeof(Meta))
    t.n_pool = 0
    t.hand = 0
    t.latest = NIL
    t.coming = False
    trials_spend(&t.trials, t.now)
    trials_clear(&t.trials)

cdef inline const char* way(Policy* p, int which, uint64_t* requests) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    if which >= WAYS:
        return NULL
    trials_spend(&t.trials, t.now)
    requests[0] = t.trials.spent[which]
    return b"strict" if which == STRICT else b"open"

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    return (a.n == 0 or a.top <= t.room) and trials_sound(&t.trials) \
        and (t.latest == NIL or a.slots[t.latest].used)

cdef inline void free_(Policy* p) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    trials_free(&t.trials)
    free(t.metas)
    free(t.ghosts)
    free(t)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>calloc(1, sizeof(Adaptive))
    if t is NULL:
        return -1
    t.buckets = 1
    t.ghosts = <Ghost*>calloc(t.buckets * CELLS, sizeof(Ghost))
    if t.ghosts is NULL or trials_init(&t.trials, p.capacity if 1 <= p.capacity <= 1000000 else 1024, mix64(p.salt + 77)) < 0:
        free(t.ghosts)
        free(t)
        return -1
    p.own = t
    p.reserve = reserve
    p.on_coming = on_coming
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.way = way
    p.clear = clear
    p.free = free_
    return 0

"""Adaptive: who promises least leaves, by what was learned of entries like it.

A request leaves eight bytes with its entry (when, how often, after what gap) and touches nothing else, unless its key
is in the sample that `trials` learns from. For a victim a few residents are drawn at random; they and the worst of those drawn
before, which are kept in a pool (as Redis does for its sampled LRU), are ranked by the value of their kind at their age
(`density`), by their weight where entries have one.

The newcomer before this one has to be worth more than the least of them, or it leaves in their place. Where what is asked for goes
round in circles that do not fit, it pays to be stricter and to let in only what was asked for a third time: `trials` finds out
which of the two has more hits. Both rank what is there, so that a change costs no rebuilding.

What left is remembered by hash, in cells of eight bytes: how often it was asked for, and when.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset
from arena cimport Arena, NIL
from density cimport AGES, age_bin, density_request, gap_class, kind_of
from engine cimport mix64
from ilist cimport ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers, policy_room
from trials cimport (Trials, noise_next, refused, trials_clear, trials_free, trials_hear, trials_init,
                     trials_reserve, trials_scale, trials_sound, trials_spend, STRICT, WAYS)

cdef enum:
    POOL = 16               # the worst of those that were drawn
    DRAWS = 8               # residents that are drawn for a victim
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

cdef struct Drawn:
    uint32_t slot
    uint32_t tick           # of its last request when it was drawn
    float worth

cdef struct Adaptive:
    Trials trials
    Meta* metas
    Ghost* ghosts
    uint32_t room           # of metas
    uint32_t buckets        # of ghosts
    uint32_t now            # requests so far
    uint32_t coming_count   # of the newcomer: what its ghost knew
    uint32_t coming_gap
    uint32_t latest         # the newcomer that was let in last
    Drawn pool[POOL]        # the least worth first
    uint32_t n_pool

cdef inline Ghost* _ghost_cells(Adaptive* t, int64_t hash, uint32_t* tag) noexcept nogil:
    cdef uint64_t h = mix64(<uint64_t>hash + t.trials.salt)
    tag[0] = <uint32_t>(h >> 32) & 0xFFFFFFF0u
    return t.ghosts + <size_t>(((h & 0xFFFFFFFFu) * t.buckets) >> 32) * CELLS

cdef inline void _ghost_put(Adaptive* t, int64_t hash, uint32_t count, uint32_t tick) noexcept nogil:
    cdef uint32_t tag = 0, i, at = 0
    cdef Ghost* g = _ghost_cells(t, hash, &tag)
    for i in range(CELLS):
        if g[i].tag == 0 or g[i].tag & 0xFFFFFFF0u == tag:
            at = i
            break
        if t.now - g[i].tick > t.now - g[at].tick:
            at = i
    g[at].tag = tag | (count if count < KNOWN else KNOWN)
    g[at].tick = tick

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t tag = 0, i
    cdef Ghost* g = _ghost_cells(t, hash, &tag)
    t.coming_count = t.coming_gap = 0
    for i in range(CELLS):
        if g[i].tag and g[i].tag & 0xFFFFFFF0u == tag:
            t.coming_count = g[i].tag & KNOWN
            t.coming_gap = gap_class(&t.trials.density, t.now + 1 - g[i].tick)
            g[i].tag = 0
            break

cdef inline void _seen(Adaptive* t, Arena* a, uint32_t s, uint32_t count, int gap) noexcept nogil:
    cdef Meta* m = &t.metas[s]
    m.tick = t.now
    m.count = <uint8_t>(count if count < 255 else 255)
    m.kind = kind_of(count, gap)
    trials_hear(&t.trials, a.slots[s].hash, m.kind, count, t.now)
    density_request(&t.trials.density, t.trials.entries)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    t.now += 1
    ilist_push_front(a, &p.order, s)
    _seen(t, a, s, t.coming_count + 1, t.coming_gap)
    t.coming_count = t.coming_gap = 0
    t.latest = s

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    t.now += 1
    _seen(t, a, s, t.metas[s].count + <uint32_t>1, gap_class(&t.trials.density, t.now - t.metas[s].tick))

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    ilist_unlink(a, &p.order, s)
    if t.latest == s:
        t.latest = NIL
    if evicted:
        _ghost_put(t, a.slots[s].hash, t.metas[s].count, t.metas[s].tick)

cdef inline float _worth(Policy* p, Adaptive* t, uint32_t s, uint32_t age) noexcept nogil:
    cdef float v
    v = t.trials.density.value[t.metas[s].kind * AGES + age_bin(&t.trials.density, age)]
    return v if p.weights is NULL or p.weights[s] <= 0 else <float>(v / p.weights[s])

cdef inline void _draw(Policy* p, Arena* a, Adaptive* t) noexcept nogil:
    """A resident at random; into the pool if it is worth less than somebody there."""
    cdef uint32_t s = 1 + <uint32_t>((noise_next(&t.trials.noise) * (a.top - 1)) >> 32), tick, i
    cdef float v
    if not a.slots[s].used:
        return
    tick = t.metas[s].tick
    v = _worth(p, t, s, t.now - tick)
    i = t.n_pool
    if i == POOL:
        if not v < t.pool[POOL - 1].worth:
            return
        i -= 1
    else:
        t.n_pool += 1
    while i > 0 and v < t.pool[i - 1].worth:
        t.pool[i] = t.pool[i - 1]
        i -= 1
    t.pool[i].slot = s
    t.pool[i].tick = tick
    t.pool[i].worth = v

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t s = NIL, newcomer = t.latest, i
    cdef float least
    if a.n == 0:
        return NIL
    # What is full now is as large as it is, whatever it was meant to be: weights and no bound say nothing of that.
    if a.n > 2 * t.trials.entries or 2 * a.n < t.trials.entries:
        trials_scale(&t.trials, a.n)
    for i in range(DRAWS):
        _draw(p, a, t)
    # Who was asked for since it was drawn, or has left, is not meant.
    for i in range(t.n_pool):
        s = t.pool[i].slot
        if s < a.top and a.slots[s].used and t.metas[s].tick == t.pool[i].tick:
            break
    else:
        i = t.n_pool
        s = p.order.tail
    least = t.pool[i].worth if i < t.n_pool else _worth(p, t, s, t.now - t.metas[s].tick)
    if newcomer != NIL and newcomer != s \
            and refused(t.trials.way, t.metas[newcomer].count, _worth(p, t, newcomer, t.now - t.metas[newcomer].tick), least):
        s = newcomer
    elif i < t.n_pool:
        i += 1
    memmove(t.pool, t.pool + i, (t.n_pool - i) * sizeof(Drawn))
    t.n_pool -= i
    return s

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return p.order.tail if s == NIL else a.slots[s].prev    # as they came

cdef inline int reserve(Policy* p, uint32_t slots) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t buckets = <uint32_t>(<uint64_t>slots * GHOSTS // CELLS) + 1
    cdef Ghost* more
    if trials_reserve(&t.trials, slots) < 0:
        return -1
    if slots > t.room:
        if policy_room(<void**>&t.metas, <size_t>slots * sizeof(Meta)) < 0:
            return -1
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
    t.n_pool = 0
    t.latest = NIL
    t.coming_count = t.coming_gap = 0
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
    return ilist_sound(a, &p.order) and p.order.n == a.n and (a.n == 0 or a.top <= t.room) and trials_sound(&t.trials) \
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

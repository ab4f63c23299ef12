"""Adaptive."""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from arena cimport Arena, NIL
from density cimport (AGES, Meta, Model, POOL, ac_tune, age_bin, gap_class, kind_of, model_free, model_hear, model_init, model_tick)
from engine cimport mix64
from ilist cimport ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers, policy_room, policy_weight

cdef struct Ghost:
    uint32_t tag        # 28 bits of the hash, then 4 of the count; 0: empty
    uint32_t tick

cdef struct Adaptive:
    Model model
    Meta* metas
    uint32_t metas_cap
    Ghost* ghosts
    uint32_t buckets    # of eight; a power of two
    uint32_t now
    uint32_t coming_count, coming_gap
    uint32_t latest     # the newcomer that was let in last
    uint32_t pool[POOL]
    uint64_t noise

cdef inline uint64_t _noise(Adaptive* t) noexcept nogil:
    t.noise ^= t.noise << 13
    t.noise ^= t.noise >> 7
    t.noise ^= t.noise << 17
    return t.noise

cdef inline void _ghost_put(Adaptive* t, int64_t hash, uint32_t count, uint32_t tick) noexcept nogil:
    cdef uint64_t h = mix64(<uint64_t>hash ^ t.model.salt ^ 0x5555)
    cdef Ghost* g = t.ghosts + <size_t>(h & (t.buckets - 1)) * 8
    cdef uint32_t tag = <uint32_t>(h >> 32) & 0xFFFFFFF0u, i, oldest = 0, age, most = 0
    for i in range(8):
        if g[i].tag & 0xFFFFFFF0u == tag or g[i].tag == 0:
            oldest = i
            break
        age = t.now - g[i].tick
        if age >= most:
            most = age
            oldest = i
    g[oldest].tag = tag | (count if count < 15 else 15)
    g[oldest].tick = tick

cdef inline Ghost* _ghost_find(Adaptive* t, int64_t hash) noexcept nogil:
    cdef uint64_t h = mix64(<uint64_t>hash ^ t.model.salt ^ 0x5555)
    cdef Ghost* g = t.ghosts + <size_t>(h & (t.buckets - 1)) * 8
    cdef uint32_t tag = <uint32_t>(h >> 32) & 0xFFFFFFF0u, i
    for i in range(8):
        if g[i].tag & 0xFFFFFFF0u == tag and g[i].tag & 15:
            return &g[i]
    return NULL

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef Ghost* g = _ghost_find(t, hash)
    t.coming_count = 0
    t.coming_gap = 0
    if g is not NULL:
        t.coming_count = g.tag & 15
        t.coming_gap = gap_class(&t.model, t.now + 1 - g.tick)
        g.tag = 0

cdef inline void _seen(Policy* p, Arena* a, uint32_t s, uint32_t count, uint32_t gap) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef Meta* m = &t.metas[s]
    m.tick = t.now
    m.count = <uint8_t>(count if count < 255 else 255)
    m.gap = <uint8_t>gap
    m.kind = kind_of(count, gap)
    model_hear(&t.model, a.slots[s].hash, m.kind, t.now)
    model_tick(&t.model)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    t.now += 1
    _seen(p, a, s, t.coming_count + 1, t.coming_gap)
    t.latest = s
    t.coming_count = 0
    t.coming_gap = 0
    ilist_push_front(a, &p.order, s)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    t.now += 1
    _seen(p, a, s, t.metas[s].count + 1u, gap_class(&t.model, t.now - t.metas[s].tick))
    if p.order.head != s:
        ilist_unlink(a, &p.order, s)
        ilist_push_front(a, &p.order, s)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    ilist_unlink(a, &p.order, s)
    if t.latest == s:
        t.latest = NIL
    if evicted:
        _ghost_put(t, a.slots[s].hash, t.metas[s].count, t.metas[s].tick)

cdef inline float _worth(Policy* p, Adaptive* t, uint32_t s, uint32_t* age) noexcept nogil:
    age[0] = t.now - t.metas[s].tick
    return t.model.value[t.metas[s].kind * AGES + age_bin(&t.model, age[0])]

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t s, best = NIL, age, best_age = 0
    cdef uint32_t ages[POOL]
    cdef float worth[POOL]
    cdef float v, least = 0
    cdef int i, n = <int>ac_tune[0], worst, at = -1, k
    if a.n == 0:
        return NIL
    for i in range(n):
        s = t.pool[i]
        if s == NIL or s >= a.top or not a.slots[s].used:
            t.pool[i] = p.order.tail
            s = p.order.tail
        worth[i] = _worth(p, t, s, &ages[i])
    for k in range(<int>ac_tune[1]):
        s = 1 + <uint32_t>(((_noise(t) >> 32) * (a.top - 1)) >> 32)
        if not a.slots[s].used:
            continue
        v = _worth(p, t, s, &age)
        worst = 0
        for i in range(n):
            if t.pool[i] == s:
                worst = -1
                break
            if worth[i] > worth[worst] or (worth[i] == worth[worst] and ages[i] < ages[worst]):
                worst = i
        if worst >= 0 and (v < worth[worst] or (v == worth[worst] and age > ages[worst])):
            t.pool[worst] = s
            worth[worst] = v
            ages[worst] = age
    for i in range(n):
        if best == NIL or worth[i] < least or (worth[i] == least and ages[i] > best_age):
            best = t.pool[i]
            least = worth[i]
            best_age = ages[i]
            at = i
    if t.latest != NIL:
        v = _worth(p, t, t.latest, &age)
        if v < least:
            return t.latest
    t.pool[at] = NIL
    return best

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return p.order.tail if s == NIL else a.slots[s].prev    # from the oldest

cdef inline int reserve(Policy* p, uint32_t slots) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    cdef uint32_t buckets = t.buckets
    cdef Ghost* more
    if slots > t.metas_cap:
        if policy_room(<void**>&t.metas, <size_t>slots * sizeof(Meta)) < 0:
            return -1
        t.metas_cap = slots
    while buckets * 8.0 < ac_tune[4] * slots:
        buckets *= 2
    if buckets > t.buckets:
        more = <Ghost*>realloc(t.ghosts, <size_t>buckets * 8 * sizeof(Ghost))
        if more is NULL:
            return -1
        t.ghosts = more
        while t.buckets < buckets:
            memcpy(t.ghosts + <size_t>t.buckets * 8, t.ghosts, <size_t>t.buckets * 8 * sizeof(Ghost))
            t.buckets *= 2
    return 0

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    return ilist_sound(a, &p.order) and p.order.n == a.n

cdef inline void free_(Policy* p) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>p.own
    model_free(&t.model)
    free(t.metas)
    free(t.ghosts)
    free(t)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef Adaptive* t = <Adaptive*>calloc(1, sizeof(Adaptive))
    if t is NULL:
        return -1
    t.buckets = 8
    t.ghosts = <Ghost*>calloc(64, sizeof(Ghost))
    t.noise = p.salt | 1
    model_init(&t.model, p.capacity if p.capacity < 1e9 else 1e6, mix64(p.salt + 77))
    p.own = t
    p.reserve = reserve
    p.on_coming = on_coming
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.free = free_
    return 0

cdef inline object told(Policy* p):
    cdef Adaptive* t = <Adaptive*>p.own
    return {"labels": t.model.labels, "tracked": t.model.n, "sample": t.model.sample / 2.0**64}

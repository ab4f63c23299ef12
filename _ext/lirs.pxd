"""LIRS (Jiang and Zhang, SIGMETRICS'02): what came back soon after its last use stays; recency alone earns nothing.

Entries are hot (LIR) or cold (HIR). The hot ones may weigh 99 hundredths of the capacity; the cold ones wait on a
queue, whose oldest leaves. A cold key that is used again while its last use is newer than that of some hot entry has
come back sooner than that entry has: it turns hot, and the hot entry that was used last the longest ago turns cold.
The keys of cold entries that left are remembered, so that this holds for them too.

The paper has a stack of all keys in the order of their last use, cut off below the last hot one. Nothing is cut off
here: every key has the moment of its last use, and is on that stack if it is newer than the last hot entry's. So the
hot entries alone need an order, and a key takes eight bytes instead of a place on a list. Remembered are at most as
many keys as are held. Cold entries leave in the order of their last use, so that what is too old to count is what was
remembered first.
"""
from libc.stdint cimport uint32_t, int64_t
from libc.stdlib cimport calloc, free
from arena cimport Arena, NIL
from ghosts cimport (Ghosts, ghosts_clear, ghosts_find, ghosts_free, ghosts_full, ghosts_init, ghosts_n, ghosts_oldest, ghosts_pop,
                     ghosts_push, ghosts_remove, ghosts_reserve, ghosts_sound)
from parts cimport Parts, parts_after, parts_move, parts_push, parts_renew, parts_sound, parts_unlink, parts_weigh
from policy cimport Policy, policy_answers, policy_room, policy_weight

cdef enum:
    COLD = 0                # by when they came there
    HOT = 1                 # by last use

cdef struct Lirs:
    Parts parts
    double* used            # by slot: the moment of its last use
    double now              # uses so far: whole numbers, exact for longer than anything lasts
    uint32_t cap
    Ghosts ghosts           # of cold entries, with the moments of their last use
    bint soon               # the newcomer is remembered, and turns hot

cdef inline bint _on_stack(const Lirs* l, double used) noexcept nogil:
    return l.parts.lists[HOT].n > 0 and used > l.used[l.parts.lists[HOT].tail]

cdef inline void _chill(Policy* p, Arena* a) noexcept nogil:
    """Hot entries turn cold, those first that were used last the longest ago, until the rest may be hot."""
    cdef Lirs* l = <Lirs*>p.own
    cdef double limit = p.capacity * 99 / 100
    while l.parts.held[HOT] > limit and l.parts.lists[HOT].n > 0:
        parts_move(&l.parts, p, a, COLD, l.parts.lists[HOT].tail)

cdef inline void _settle(Policy* p, Arena* a, uint32_t s, bint hot) noexcept nogil:
    """In no part, and used now: turn hot, if it has earned that or there is room for it, or wait as the newest."""
    cdef Lirs* l = <Lirs*>p.own
    l.now += 1
    l.used[s] = l.now
    if hot or l.parts.held[HOT] + policy_weight(p, s) <= p.capacity * 99 / 100:
        parts_push(&l.parts, p, a, HOT, s)
        _chill(p, a)
    else:
        parts_push(&l.parts, p, a, COLD, s)

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    cdef uint32_t g = ghosts_find(&l.ghosts, hash)
    l.soon = g != NIL and _on_stack(l, l.ghosts.weights[g])
    if g != NIL:
        ghosts_remove(&l.ghosts, g)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    _settle(p, a, s, l.soon)
    l.soon = False

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    if a.slots[s].visited == HOT:
        l.now += 1
        l.used[s] = l.now
        parts_renew(&l.parts, a, s)
        _chill(p, a)
    else:
        parts_unlink(&l.parts, p, a, s)
        _settle(p, a, s, _on_stack(l, l.used[s]))

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    parts_weigh(&(<Lirs*>p.own).parts, p, a, s, before)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    cdef int where = a.slots[s].visited
    parts_unlink(&l.parts, p, a, s)
    if evicted and where == COLD and _on_stack(l, l.used[s]):
        while ghosts_n(&l.ghosts) and (not _on_stack(l, l.ghosts.weights[ghosts_oldest(&l.ghosts, 0)])
                                       or ghosts_n(&l.ghosts) >= a.n or ghosts_full(&l.ghosts)):
            ghosts_pop(&l.ghosts, 0)
        ghosts_push(&l.ghosts, a.slots[s].hash, 0, l.used[s])

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    return l.parts.lists[COLD].tail if l.parts.lists[COLD].n else l.parts.lists[HOT].tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return parts_after(&(<Lirs*>p.own).parts, a, s)

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    ghosts_clear(&(<Lirs*>p.own).ghosts)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    cdef double newer = l.now + 1
    cdef uint32_t s = l.parts.lists[HOT].head
    if not parts_sound(&l.parts, p, a) or l.soon or l.parts.held[HOT] > p.capacity * 99 / 100 * (1 + 1e-9):
        return False
    while s != NIL:
        if not l.used[s] < newer:
            return False
        newer = l.used[s]
        s = a.slots[s].next
    s = l.parts.lists[COLD].head
    while s != NIL:
        if l.used[s] > l.now:
            return False
        s = a.slots[s].next
    newer = l.now + 1
    s = l.ghosts.lists[0].head
    while s != NIL:
        if not l.ghosts.weights[s] < newer:
            return False
        newer = l.ghosts.weights[s]
        s = l.ghosts.arena.slots[s].next
    return ghosts_sound(&l.ghosts)

cdef inline int reserve(Policy* p, uint32_t cap) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    if cap > l.cap:
        if policy_room(<void**>&l.used, <size_t>cap * sizeof(double)) < 0:
            return -1
        l.cap = cap
    return ghosts_reserve(&l.ghosts, cap)

cdef inline void release(Policy* p) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    ghosts_free(&l.ghosts)
    free(l.used)
    free(l)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef Lirs* l = <Lirs*>calloc(1, sizeof(Lirs))
    if l is NULL:
        return -1
    if ghosts_init(&l.ghosts) < 0:
        free(l)
        return -1
    p.own = l
    p.reserve = reserve
    p.on_coming = on_coming
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.weigh = weigh
    p.resize = _chill
    p.clear = clear
    p.free = release
    return 0

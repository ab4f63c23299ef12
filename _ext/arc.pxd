"""ARC: two LRU lists, of what was used once and of what was used again, share the room as their ghosts advise.

Megiddo, Modha: ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST '03. `recent` is T1 of the paper, `frequent` T2, and
the two lists of ghosts are B1 and B2. The target p is what `recent` may hold: a ghost of B1 that is asked for raises it, one
of B2 lowers it, by the ratio of the other list to its own where that is more than one.

With weights, sizes of lists are sums of weights, and a ghost moves p by its own weight times that ratio. As in the paper
`recent` and B1 together are never more than the capacity, nor all four lists more than twice that; nor are there more
ghosts than entries.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free
from arena cimport Arena, NIL
from ghosts cimport (Ghosts, ghosts_clear, ghosts_find, ghosts_free, ghosts_init, ghosts_list, ghosts_n, ghosts_pop, ghosts_push,
                     ghosts_remove, ghosts_reserve, ghosts_sound)
from parts cimport Parts, parts_after, parts_move, parts_push, parts_renew, parts_sound, parts_unlink, parts_weigh
from policy cimport Policy, policy_answers, policy_weight

cdef enum:
    RECENT = 0              # a slot's `visited`; its ghosts are on the list of the same number
    FREQUENT = 1
    NOWHERE = 2

cdef struct Arc:
    Ghosts ghosts
    Parts parts
    double target           # p
    double coming           # the weight of the newcomer
    int known               # the list of ghosts on which it was found, or NOWHERE
    uint32_t unsung         # the victim that leaves no ghost

cdef inline void _arc_trim_recent(const Policy* p, Arc* t, double more) noexcept nogil:
    """Forget until the recent and their ghosts have room for so much more."""
    while t.ghosts.lists[RECENT].n and t.parts.held[RECENT] + t.ghosts.total[RECENT] + more > p.capacity:
        ghosts_pop(&t.ghosts, RECENT)

cdef inline void _arc_trim_all(const Policy* p, Arc* t, double more) noexcept nogil:
    while t.ghosts.lists[FREQUENT].n and t.parts.held[RECENT] + t.parts.held[FREQUENT] + t.ghosts.total[RECENT] \
            + t.ghosts.total[FREQUENT] + more > 2 * p.capacity:
        ghosts_pop(&t.ghosts, FREQUENT)

cdef inline void _arc_trim(const Policy* p, Arc* t) noexcept nogil:
    _arc_trim_recent(p, t, 0)
    _arc_trim_all(p, t, 0)

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    cdef uint32_t g = ghosts_find(&t.ghosts, hash)
    cdef double ratio
    cdef int which
    t.coming = weight
    t.known = NOWHERE
    if g == NIL:
        return
    which = ghosts_list(&t.ghosts, g)
    ratio = t.ghosts.total[1 - which] / t.ghosts.total[which] if t.ghosts.total[which] > 0 else 1
    if ratio < 1:
        ratio = 1
    if which == RECENT:
        t.target += ratio * t.ghosts.weights[g]
        if t.target > p.capacity:
            t.target = p.capacity
    else:
        t.target -= ratio * t.ghosts.weights[g]
        if t.target < 0:
            t.target = 0
    t.known = which
    ghosts_remove(&t.ghosts, g)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    parts_push(&t.parts, p, a, RECENT if t.known == NOWHERE else FREQUENT, s)
    _arc_trim(p, t)
    t.coming = 0
    t.known = NOWHERE

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    if a.slots[s].visited == RECENT:
        parts_move(&t.parts, p, a, FREQUENT, s)
    else:
        parts_renew(&t.parts, a, s)

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    parts_weigh(&t.parts, p, a, s, before)
    _arc_trim(p, t)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    cdef int where = a.slots[s].visited
    cdef uint32_t g
    parts_unlink(&t.parts, p, a, s)
    if not evicted or s == t.unsung:
        return
    g = ghosts_find(&t.ghosts, a.slots[s].hash)
    if g != NIL:
        ghosts_remove(&t.ghosts, g)
    while ghosts_n(&t.ghosts) >= a.n:
        ghosts_pop(&t.ghosts, FREQUENT if t.ghosts.lists[FREQUENT].n > t.ghosts.lists[RECENT].n else RECENT)
    ghosts_push(&t.ghosts, a.slots[s].hash, where, policy_weight(p, s))
    _arc_trim(p, t)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    cdef uint32_t s = t.parts.lists[RECENT].tail
    t.unsung = NIL
    if t.known == NOWHERE:
        _arc_trim_recent(p, t, t.coming)
        if s != NIL and t.parts.held[RECENT] + t.coming > p.capacity:     # they alone are too many, and have no ghosts
            t.unsung = s
            return s
        _arc_trim_all(p, t, t.coming)
    if s != NIL and (t.parts.lists[FREQUENT].n == 0 or t.parts.held[RECENT] > t.target
                     or (t.parts.held[RECENT] == t.target and t.known == FREQUENT)):
        return s
    return t.parts.lists[FREQUENT].tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return parts_after(&(<Arc*>p.own).parts, a, s)

cdef inline void resize(Policy* p, Arena* a) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    if t.target > p.capacity:
        t.target = p.capacity
    _arc_trim(p, t)

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    ghosts_clear(&t.ghosts)
    t.target = 0
    t.coming = 0
    t.known = NOWHERE

cdef inline int reserve(Policy* p, uint32_t slots) noexcept nogil:
    return ghosts_reserve(&(<Arc*>p.own).ghosts, slots)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    cdef double recent = t.parts.held[RECENT] + t.ghosts.total[RECENT]
    if not parts_sound(&t.parts, p, a) or not 0 <= t.target <= p.capacity:
        return False
    if ghosts_n(&t.ghosts) and recent + t.parts.held[FREQUENT] + t.ghosts.total[FREQUENT] > 2 * p.capacity * (1 + 1e-6):
        return False
    if t.ghosts.lists[RECENT].n and recent > p.capacity * (1 + 1e-6):
        return False
    return ghosts_sound(&t.ghosts)

cdef inline void free_(Policy* p) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    ghosts_free(&t.ghosts)
    free(t)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef Arc* t = <Arc*>calloc(1, sizeof(Arc))
    if t is NULL:
        return -1
    if ghosts_init(&t.ghosts) < 0:
        free(t)
        return -1
    t.known = NOWHERE
    p.own = t
    p.reserve = reserve
    p.on_coming = on_coming
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.weigh = weigh
    p.resize = resize
    p.clear = clear
    p.free = free_
    return 0

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
from ilist cimport IList, ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_weight

cdef enum:
    RECENT = 0              # a slot's `visited`; its ghosts are on the list of the same number
    FREQUENT = 1
    NOWHERE = 2

cdef struct Arc:
    Ghosts ghosts
    IList lists[2]
    double held[2]          # weights
    double target           # p
    double coming           # the weight of the newcomer
    int known               # the list of ghosts on which it was found, or NOWHERE
    uint32_t unsung         # the victim that leaves no ghost

cdef inline void _arc_push(Policy* p, Arena* a, Arc* t, int where, uint32_t s) noexcept nogil:
    a.slots[s].visited = <unsigned char>where
    ilist_push_front(a, &t.lists[where], s)
    t.held[where] += policy_weight(p, s)

cdef inline void _arc_unlink(Policy* p, Arena* a, Arc* t, uint32_t s) noexcept nogil:
    cdef int where = a.slots[s].visited
    ilist_unlink(a, &t.lists[where], s)
    # What nobody weighs is nothing, whatever rounding has left.
    t.held[where] = t.held[where] - policy_weight(p, s) if t.lists[where].n else 0

cdef inline void _arc_trim_recent(const Policy* p, Arc* t, double more) noexcept nogil:
    """Forget until the recent and their ghosts have room for so much more."""
    while t.ghosts.lists[RECENT].n and t.held[RECENT] + t.ghosts.total[RECENT] + more > p.capacity:
        ghosts_pop(&t.ghosts, RECENT)

cdef inline void _arc_trim_all(const Policy* p, Arc* t, double more) noexcept nogil:
    while t.ghosts.lists[FREQUENT].n and t.held[RECENT] + t.held[FREQUENT] + t.ghosts.total[RECENT] \
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
    _arc_push(p, a, t, RECENT if t.known == NOWHERE else FREQUENT, s)
    _arc_trim(p, t)
    t.coming = 0
    t.known = NOWHERE

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    if a.slots[s].visited == RECENT:
        _arc_unlink(p, a, t, s)
        _arc_push(p, a, t, FREQUENT, s)
    elif t.lists[FREQUENT].head != s:
        ilist_unlink(a, &t.lists[FREQUENT], s)
        ilist_push_front(a, &t.lists[FREQUENT], s)

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    t.held[a.slots[s].visited] += policy_weight(p, s) - before
    _arc_trim(p, t)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Arc* t = <Arc*>p.own
    cdef int where = a.slots[s].visited
    cdef uint32_t g
    _arc_unlink(p, a, t, s)
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
    cdef uint32_t s = t.lists[RECENT].tail
    t.unsung = NIL
    if t.known == NOWHERE:
        _arc_trim_recent(p, t, t.coming)
        if s != NIL and t.held[RECENT] + t.coming > p.capacity:     # they alone are too many, and have no ghosts
            t.unsung = s
            return s
        _arc_trim_all(p, t, t.coming)
    if s != NIL and (t.lists[FREQUENT].n == 0 or t.held[RECENT] > t.target
                     or (t.held[RECENT] == t.target and t.known == FREQUENT)):
        return s
    return t.lists[FREQUENT].tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """The recent, then the frequent; each from the oldest."""
    cdef Arc* t = <Arc*>p.own
    if s == NIL:
        return t.lists[RECENT].tail if t.lists[RECENT].n else t.lists[FREQUENT].tail
    if a.slots[s].prev == NIL and a.slots[s].visited == RECENT:
        return t.lists[FREQUENT].tail
    return a.slots[s].prev

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
    cdef uint32_t s, n = 0
    cdef int where
    cdef double total, all_ = 0
    for where in range(2):
        if not ilist_sound(a, &t.lists[where]):
            return False
        n += t.lists[where].n
        total = 0
        s = t.lists[where].head
        while s != NIL:
            if a.slots[s].visited != where:
                return False
            total += policy_weight(p, s)
            s = a.slots[s].next
        if total - t.held[where] > 1e-6 * (1 + total) or t.held[where] - total > 1e-6 * (1 + total):
            return False
        all_ += total + t.ghosts.total[where]
    if not 0 <= t.target <= p.capacity or (ghosts_n(&t.ghosts) and all_ > 2 * p.capacity * (1 + 1e-6)):
        return False
    if t.ghosts.lists[RECENT].n and t.held[RECENT] + t.ghosts.total[RECENT] > p.capacity * (1 + 1e-6):
        return False
    return n == a.n and ghosts_sound(&t.ghosts)

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
    p.on_insert = on_insert
    p.on_hit = on_hit
    p.weigh = weigh
    p.on_remove = on_remove
    p.victim = victim
    p.after = after
    p.resize = resize
    p.clear = clear
    p.check = check
    p.free = free_
    return 0

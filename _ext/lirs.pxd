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
from libc.stdlib cimport calloc, free, realloc
from arena cimport Arena, NIL
from ghosts cimport (Ghosts, ghosts_clear, ghosts_find, ghosts_free, ghosts_full, ghosts_init, ghosts_n, ghosts_oldest, ghosts_pop,
                     ghosts_push, ghosts_remove, ghosts_reserve, ghosts_sound)
from ilist cimport IList, ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_weight

cdef struct Lirs:
    IList cold              # by when they came on it. The hot ones, by last use, are the policy's own list: `visited` is 1
    double hot              # weight of the hot ones
    double* used            # by slot: the moment of its last use
    double now              # uses so far: whole numbers, exact for longer than anything lasts
    uint32_t cap
    Ghosts ghosts           # of cold entries, with the moments of their last use
    bint soon               # the newcomer is remembered, and turns hot

cdef inline bint _on_stack(const Policy* p, double used) noexcept nogil:
    return p.order.n > 0 and used > (<Lirs*>p.own).used[p.order.tail]

cdef inline void _chill(Policy* p, Arena* a) noexcept nogil:
    """Hot entries turn cold, those first that were used last the longest ago, until the rest may be hot."""
    cdef Lirs* l = <Lirs*>p.own
    cdef double limit = p.capacity * 99 / 100
    cdef uint32_t s
    while l.hot > limit and p.order.n > 0:
        s = p.order.tail
        _leave_hot(p, a, s)
        ilist_push_front(a, &l.cold, s)

cdef inline void _leave_hot(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    ilist_unlink(a, &p.order, s)
    a.slots[s].visited = 0
    # Of nothing the weight is nothing, whatever rounding has left.
    l.hot = l.hot - policy_weight(p, s) if p.order.n else 0

cdef inline void _settle(Policy* p, Arena* a, uint32_t s, bint hot) noexcept nogil:
    """On no list, and used now: turn hot, if it has earned that or there is room for it, or wait as the newest."""
    cdef Lirs* l = <Lirs*>p.own
    cdef double weight = policy_weight(p, s)
    l.now += 1
    l.used[s] = l.now
    if hot or l.hot + weight <= p.capacity * 99 / 100:
        a.slots[s].visited = 1
        ilist_push_front(a, &p.order, s)
        l.hot += weight
        _chill(p, a)
    else:
        a.slots[s].visited = 0
        ilist_push_front(a, &l.cold, s)

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    cdef uint32_t g = ghosts_find(&l.ghosts, hash)
    l.soon = g != NIL and _on_stack(p, l.ghosts.weights[g])
    if g != NIL:
        ghosts_remove(&l.ghosts, g)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    _settle(p, a, s, l.soon)
    l.soon = False

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    if a.slots[s].visited:
        l.now += 1
        l.used[s] = l.now
        if p.order.head != s:
            ilist_unlink(a, &p.order, s)
            ilist_push_front(a, &p.order, s)
        _chill(p, a)
    else:
        ilist_unlink(a, &l.cold, s)
        _settle(p, a, s, _on_stack(p, l.used[s]))

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    if a.slots[s].visited:
        (<Lirs*>p.own).hot += policy_weight(p, s) - before

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    if a.slots[s].visited:
        _leave_hot(p, a, s)
        return
    ilist_unlink(a, &l.cold, s)
    if evicted and _on_stack(p, l.used[s]):
        while ghosts_n(&l.ghosts) and (not _on_stack(p, l.ghosts.weights[ghosts_oldest(&l.ghosts, 0)])
                                       or ghosts_n(&l.ghosts) >= a.n or ghosts_full(&l.ghosts)):
            ghosts_pop(&l.ghosts, 0)
        ghosts_push(&l.ghosts, a.slots[s].hash, 0, l.used[s])

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    return (<Lirs*>p.own).cold.tail if (<Lirs*>p.own).cold.n else p.order.tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """The cold ones, then the hot ones; the oldest first."""
    cdef bint cold = s == NIL or not a.slots[s].visited
    s = (<Lirs*>p.own).cold.tail if s == NIL else a.slots[s].prev
    return p.order.tail if s == NIL and cold else s

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    ghosts_clear(&(<Lirs*>p.own).ghosts)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    cdef double hot = 0, newer = l.now + 1
    cdef uint32_t s
    if not ilist_sound(a, &p.order) or not ilist_sound(a, &l.cold) or p.order.n + l.cold.n != a.n or l.soon:
        return False
    s = p.order.head
    while s != NIL:
        if not a.slots[s].visited or not l.used[s] < newer:
            return False
        newer = l.used[s]
        hot += policy_weight(p, s)
        s = a.slots[s].next
    s = l.cold.head
    while s != NIL:
        if a.slots[s].visited or l.used[s] > l.now:
            return False
        s = a.slots[s].next
    newer = l.now + 1
    s = l.ghosts.lists[0].head
    while s != NIL:
        if not l.ghosts.weights[s] < newer:
            return False
        newer = l.ghosts.weights[s]
        s = l.ghosts.arena.slots[s].next
    return -1e-9 * (1 + hot) <= l.hot - hot <= 1e-9 * (1 + hot) and l.hot <= p.capacity * 99 / 100 * (1 + 1e-9) \
        and ghosts_sound(&l.ghosts)

cdef inline int reserve(Policy* p, uint32_t cap) noexcept nogil:
    cdef Lirs* l = <Lirs*>p.own
    cdef double* more
    if cap > l.cap:
        more = <double*>realloc(l.used, <size_t>cap * sizeof(double))
        if more is NULL:
            return -1
        l.used = more
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
    if ghosts_init(&l.ghosts, p.salt) < 0:
        free(l)
        return -1
    p.own = l
    p.reserve = reserve
    p.on_coming = on_coming
    p.on_insert = on_insert
    p.on_hit = on_hit
    p.weigh = weigh
    p.on_remove = on_remove
    p.victim = victim
    p.after = after
    p.resize = _chill
    p.clear = clear
    p.check = check
    p.free = release
    return 0

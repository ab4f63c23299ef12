"""S3-FIFO (Yang, Zhang, Qiu, Yue and Vigfusson, SOSP'23): three queues, so that one-hit wonders leave soon.

A newcomer enters the small queue, which is to weigh a tenth of the capacity. What reaches its end goes on to the main
queue if it was hit twice or more, else it leaves and its hash is remembered. Who comes back while remembered enters
the main queue at once. What reaches the end of the main queue, and was hit, goes round once more for each hit, up to
three. The small queue loses entries while it has its tenth, the main queue otherwise: at capacities below ten entries
the small queue has its tenth as soon as there is one entry in it. While the cache fills for the first time, those whom
the small queue has no room for enter the main queue too, as in the authors' own implementation: else a loop that is
longer than the cache would never leave anything there.

Remembered are as many as the main queue may hold: nine tenths of the capacity, and no more ghosts than entries.
"""
from libc.stdint cimport uint8_t, uint32_t, int64_t
from libc.stdlib cimport calloc, free
from arena cimport Arena, NIL
from ghosts cimport (Ghosts, ghosts_clear, ghosts_find, ghosts_free, ghosts_full, ghosts_init, ghosts_n, ghosts_pop, ghosts_push,
                     ghosts_remove, ghosts_reserve, ghosts_sound)
from ilist cimport IList, ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers, policy_weight

cdef enum:
    MOST = 3                # hits are counted up to here, in the low bits of `visited`
    MAIN = 4                # this bit of `visited`: on the main queue

cdef struct Queues:
    IList main              # the small one is the policy's own list
    double small            # weight of it
    Ghosts ghosts
    bint known              # the newcomer was remembered
    bint full               # something was evicted since nothing was held

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef Queues* q = <Queues*>p.own
    cdef uint32_t g = ghosts_find(&q.ghosts, hash)
    q.known = g != NIL
    if g != NIL:
        ghosts_remove(&q.ghosts, g)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Queues* q = <Queues*>p.own
    if q.known or (not q.full and q.small >= p.capacity / 10):
        a.slots[s].visited = MAIN
        ilist_push_front(a, &q.main, s)
    else:
        a.slots[s].visited = 0
        ilist_push_front(a, &p.order, s)
        q.small += policy_weight(p, s)
    q.known = False

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    a.slots[s].visited += (a.slots[s].visited & MOST) < MOST

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    if not a.slots[s].visited & MAIN:
        (<Queues*>p.own).small += policy_weight(p, s) - before

cdef inline void _leave_small(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Queues* q = <Queues*>p.own
    ilist_unlink(a, &p.order, s)
    # Of nothing the weight is nothing, whatever rounding has left.
    q.small = q.small - policy_weight(p, s) if p.order.n else 0

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Queues* q = <Queues*>p.own
    cdef double weight
    q.full = a.n > 1 and (q.full or evicted)
    if a.slots[s].visited & MAIN:
        ilist_unlink(a, &q.main, s)
        return
    _leave_small(p, a, s)
    if evicted:
        weight = policy_weight(p, s)
        while ghosts_n(&q.ghosts) and (q.ghosts.total[0] + weight > p.capacity * 9 / 10 or ghosts_n(&q.ghosts) >= a.n
                                       or ghosts_full(&q.ghosts)):
            ghosts_pop(&q.ghosts, 0)
        if weight <= p.capacity * 9 / 10:
            ghosts_push(&q.ghosts, a.slots[s].hash, 0, weight)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Queues* q = <Queues*>p.own
    cdef double share = p.capacity / 10
    cdef uint32_t s
    cdef uint8_t seen
    while True:
        if p.order.n and (q.small >= share or q.main.n == 0):
            s = p.order.tail
            if (a.slots[s].visited & MOST) < 2:
                return s
            _leave_small(p, a, s)
            a.slots[s].visited = MAIN
            ilist_push_front(a, &q.main, s)
        else:
            s = q.main.tail
            if s == NIL:
                return NIL
            seen = a.slots[s].visited & MOST
            if seen == 0:
                return s
            a.slots[s].visited = MAIN | (seen - 1)
            ilist_unlink(a, &q.main, s)
            ilist_push_front(a, &q.main, s)

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """The small queue, then the main one; the oldest first."""
    cdef bint small = s == NIL or not a.slots[s].visited & MAIN
    s = p.order.tail if s == NIL else a.slots[s].prev
    return (<Queues*>p.own).main.tail if s == NIL and small else s

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    ghosts_clear(&(<Queues*>p.own).ghosts)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Queues* q = <Queues*>p.own
    cdef double small = 0
    cdef uint32_t s
    if not ilist_sound(a, &p.order) or not ilist_sound(a, &q.main) or p.order.n + q.main.n != a.n or q.known:
        return False
    s = p.order.head
    while s != NIL:
        if a.slots[s].visited > MOST:
            return False
        small += policy_weight(p, s)
        s = a.slots[s].next
    s = q.main.head
    while s != NIL:
        if not a.slots[s].visited & MAIN:
            return False
        s = a.slots[s].next
    return -1e-9 * (1 + small) <= q.small - small <= 1e-9 * (1 + small) and ghosts_sound(&q.ghosts)

cdef inline int reserve(Policy* p, uint32_t cap) noexcept nogil:
    return ghosts_reserve(&(<Queues*>p.own).ghosts, cap)

cdef inline void release(Policy* p) noexcept nogil:
    ghosts_free(&(<Queues*>p.own).ghosts)
    free(p.own)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef Queues* q = <Queues*>calloc(1, sizeof(Queues))
    if q is NULL:
        return -1
    if ghosts_init(&q.ghosts) < 0:
        free(q)
        return -1
    p.own = q
    p.reserve = reserve
    p.on_coming = on_coming
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.weigh = weigh
    p.clear = clear
    p.free = release
    return 0

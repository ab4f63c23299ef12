"""GDSF, greedy dual size with frequency (Cherkasova, HP Labs 1998-69): what is dear, small and often used stays.

An entry's priority is the clock at its last use plus uses × cost / size; the least priority leaves, and the clock moves
on to it, so that what is not used any more is overtaken. Of several, the one leaves that was used last the longest ago.

Priorities are kept against the clock of the last settling, at which the clock is set back to nought: once as many have
been evicted as are held. So they never grow beyond what tells two of them apart, however long the cache lives.
"""
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from arena cimport Arena, NIL
from ilist cimport ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers, policy_room, policy_weight

cdef struct Worth:
    double priority
    double cost             # of a miss; 1 where nobody told
    uint64_t used           # the turn of the last use
    uint32_t uses
    uint32_t at             # in the heap

cdef struct Heap:
    Worth* worth            # by slot
    uint32_t* heap          # slots; the root, at 0, leaves next
    uint32_t cap
    uint32_t n
    double clock            # priority of what was last evicted
    uint64_t turn
    uint32_t evicted        # since the last settling

cdef inline bint _sooner(const Heap* h, uint32_t s, uint32_t r) noexcept nogil:
    """Does `s` leave before `r`?"""
    cdef const Worth* one = &h.worth[s]
    cdef const Worth* other = &h.worth[r]
    return one.priority < other.priority or (one.priority == other.priority and one.used < other.used)

cdef inline void _place(Heap* h, uint32_t s, uint32_t at) noexcept nogil:
    h.heap[at] = s
    h.worth[s].at = at

cdef inline void _sift(Heap* h, uint32_t s, uint32_t at) noexcept nogil:
    """`at` is free: put `s` there, or as far up or down from there as it belongs."""
    cdef uint32_t up, down
    while at > 0:
        up = (at - 1) >> 1
        if not _sooner(h, s, h.heap[up]):
            break
        _place(h, h.heap[up], at)
        at = up
    while True:
        down = 2 * at + 1
        if down >= h.n:
            break
        if down + 1 < h.n and _sooner(h, h.heap[down + 1], h.heap[down]):
            down += 1
        if not _sooner(h, h.heap[down], s):
            break
        _place(h, h.heap[down], at)
        at = down
    _place(h, s, at)

cdef inline void _used(Policy* p, uint32_t s) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    cdef Worth* w = &h.worth[s]
    cdef double weight = policy_weight(p, s), value
    w.used = h.turn
    h.turn += 1
    # What weighs nothing is worth holding for ever; but "for ever" must be a number that can be added to.
    value = w.uses * w.cost / weight if weight > 0 else 1e200
    w.priority = h.clock + (value if value < 1e200 else 1e200)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    ilist_push_front(a, &p.order, s)
    h.worth[s].uses = 1
    h.worth[s].cost = p.cost if p.cost >= 0 else 1
    _used(p, s)
    h.n += 1
    _sift(h, s, h.n - 1)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    if h.worth[s].uses < UINT32_MAX:
        h.worth[s].uses += 1
    if p.cost >= 0:
        h.worth[s].cost = p.cost
    _used(p, s)
    _sift(h, s, h.worth[s].at)

cdef inline void _settle(Heap* h) noexcept nogil:
    # Nothing is below the clock, so differences keep their order, to the last bit: see the tests.
    cdef uint32_t i
    for i in range(h.n):
        h.worth[h.heap[i]].priority -= h.clock
    h.clock = 0
    h.evicted = 0

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    cdef uint32_t at = h.worth[s].at, last
    ilist_unlink(a, &p.order, s)
    h.n -= 1
    last = h.heap[h.n]
    if last != s:
        _sift(h, last, at)
    if evicted:
        h.clock = h.worth[s].priority
        h.evicted += 1
        if h.evicted >= h.n:
            _settle(h)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    return (<Heap*>p.own).heap[0] if (<Heap*>p.own).n else NIL

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return p.order.tail if s == NIL else a.slots[s].prev    # by insertion, from the oldest

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    _settle(<Heap*>p.own)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    cdef uint32_t i
    if not ilist_sound(a, &p.order) or p.order.n != a.n or h.n != a.n:
        return False
    for i in range(h.n):
        if h.worth[h.heap[i]].at != i or not a.slots[h.heap[i]].used or not h.worth[h.heap[i]].priority >= h.clock:
            return False
        if i > 0 and _sooner(h, h.heap[i], h.heap[(i - 1) >> 1]):
            return False
    return True

cdef inline int reserve(Policy* p, uint32_t cap) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    if cap <= h.cap:
        return 0
    if policy_room(<void**>&h.worth, <size_t>cap * sizeof(Worth)) < 0 or policy_room(<void**>&h.heap, <size_t>cap * sizeof(uint32_t)) < 0:
        return -1
    h.cap = cap
    return 0

cdef inline void release(Policy* p) noexcept nogil:
    cdef Heap* h = <Heap*>p.own
    free(h.worth)
    free(h.heap)
    free(h)

cdef inline int bind(Policy* p) noexcept nogil:
    p.own = calloc(1, sizeof(Heap))
    if p.own is NULL:
        return -1
    p.reserve = reserve
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.clear = clear
    p.free = release
    return 0

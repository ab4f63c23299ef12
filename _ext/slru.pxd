"""SLRU, segmented LRU (Karedla, Love and Wherry, IEEE Computer 1994): who was hit again is protected.

A newcomer is on probation, an LRU list; a hit there moves it to the protected list, which may weigh four fifths of the
capacity. What that pushes out of its end goes back to the front of probation, and only probation loses entries while
it has any.
"""
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from arena cimport Arena, NIL
from ilist cimport IList, ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_weight

cdef struct Segment:
    IList order             # protected: `visited` is 1 there. Probation is the policy's own list
    double weight           # of all that is on it

cdef inline void _demote(Policy* p, Arena* a) noexcept nogil:
    cdef Segment* safe = <Segment*>p.own
    cdef double limit = p.capacity * 4 / 5
    cdef uint32_t s
    while safe.weight > limit and safe.order.n > 0:
        s = safe.order.tail
        _leave(p, a, s)
        ilist_push_front(a, &p.order, s)

cdef inline void _leave(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """Out of the protected list."""
    cdef Segment* safe = <Segment*>p.own
    ilist_unlink(a, &safe.order, s)
    a.slots[s].visited = 0
    # Of nothing the weight is nothing, whatever rounding has left.
    safe.weight = safe.weight - policy_weight(p, s) if safe.order.n else 0

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    a.slots[s].visited = 0
    ilist_push_front(a, &p.order, s)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Segment* safe = <Segment*>p.own
    if a.slots[s].visited:
        if safe.order.head != s:
            ilist_unlink(a, &safe.order, s)
            ilist_push_front(a, &safe.order, s)
    else:
        ilist_unlink(a, &p.order, s)
        a.slots[s].visited = 1
        ilist_push_front(a, &safe.order, s)
        safe.weight += policy_weight(p, s)
    _demote(p, a)

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    if a.slots[s].visited:
        (<Segment*>p.own).weight += policy_weight(p, s) - before

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    if a.slots[s].visited:
        _leave(p, a, s)
    else:
        ilist_unlink(a, &p.order, s)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    return p.order.tail if p.order.n else (<Segment*>p.own).order.tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """Probation, then what is protected; the oldest first."""
    cdef bint probation = s == NIL or not a.slots[s].visited
    s = p.order.tail if s == NIL else a.slots[s].prev
    return (<Segment*>p.own).order.tail if s == NIL and probation else s

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Segment* safe = <Segment*>p.own
    cdef double weight = 0
    cdef uint32_t s
    if not ilist_sound(a, &p.order) or not ilist_sound(a, &safe.order) or p.order.n + safe.order.n != a.n:
        return False
    s = p.order.head
    while s != NIL:
        if a.slots[s].visited:
            return False
        s = a.slots[s].next
    s = safe.order.head
    while s != NIL:
        if not a.slots[s].visited:
            return False
        weight += policy_weight(p, s)
        s = a.slots[s].next
    return -1e-9 * (1 + weight) <= safe.weight - weight <= 1e-9 * (1 + weight) \
        and safe.weight <= p.capacity * 4 / 5 * (1 + 1e-9)

cdef inline void release(Policy* p) noexcept nogil:
    free(p.own)

cdef inline int bind(Policy* p) noexcept nogil:
    p.own = calloc(1, sizeof(Segment))
    if p.own is NULL:
        return -1
    p.on_insert = on_insert
    p.on_hit = on_hit
    p.weigh = weigh
    p.on_remove = on_remove
    p.victim = victim
    p.after = after
    p.resize = _demote
    p.check = check
    p.free = release
    return 0

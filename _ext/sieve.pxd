"""SIEVE (Zhang et al., NSDI'24): a FIFO whose hand spares what was visited since it last passed.

The hand moves from the oldest to the newest and starts again at the oldest.
"""
from libc.stdint cimport uint32_t
from arena cimport Arena, NIL
from ilist cimport ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    a.slots[s].visited = 0
    ilist_push_front(a, &p.order, s)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    a.slots[s].visited = 1

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    if p.hand == s:                     # the hand never rests on a slot that left
        p.hand = a.slots[s].prev
    ilist_unlink(a, &p.order, s)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef uint32_t s = p.hand if p.hand != NIL else p.order.tail
    while s != NIL and a.slots[s].visited:
        a.slots[s].visited = 0
        s = a.slots[s].prev if a.slots[s].prev != NIL else p.order.tail
    p.hand = s
    return s

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return p.order.tail if s == NIL else a.slots[s].prev    # from the oldest

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef uint32_t s = p.order.head
    if not ilist_sound(a, &p.order) or p.order.n != a.n:
        return False
    while s != NIL and s != p.hand:
        s = a.slots[s].next
    return s == p.hand                  # the hand is NIL or rests on a held slot

cdef inline int bind(Policy* p) noexcept nogil:
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    return 0

"""LRU: hits move to the front; the tail leaves."""
from libc.stdint cimport uint32_t
from arena cimport Arena, NIL
from ilist cimport ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    ilist_push_front(a, &p.order, s)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    if p.order.head != s:
        ilist_unlink(a, &p.order, s)
        ilist_push_front(a, &p.order, s)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    ilist_unlink(a, &p.order, s)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    return p.order.tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return p.order.tail if s == NIL else a.slots[s].prev    # from the oldest

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    return ilist_sound(a, &p.order) and p.order.n == a.n

cdef inline int bind(Policy* p) noexcept nogil:
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    return 0

"""SLRU, segmented LRU (Karedla, Love and Wherry, IEEE Computer 1994): who was hit again is protected.

A newcomer is on probation, an LRU list; a hit there moves it to the protected list, which may weigh four fifths of the
capacity. What that pushes out of its end goes back to the front of probation, and only probation loses entries while
it has any.
"""
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from arena cimport Arena
from parts cimport Parts, parts_after, parts_move, parts_push, parts_renew, parts_sound, parts_unlink, parts_weigh
from policy cimport Policy, policy_answers

cdef enum:
    PROBATION = 0
    PROTECTED = 1

cdef inline void _demote(Policy* p, Arena* a) noexcept nogil:
    cdef Parts* t = <Parts*>p.own
    cdef double limit = p.capacity * 4 / 5
    while t.held[PROTECTED] > limit and t.lists[PROTECTED].n > 0:
        parts_move(t, p, a, PROBATION, t.lists[PROTECTED].tail)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    parts_push(<Parts*>p.own, p, a, PROBATION, s)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    if a.slots[s].visited == PROTECTED:
        parts_renew(<Parts*>p.own, a, s)
    else:
        parts_move(<Parts*>p.own, p, a, PROTECTED, s)
    _demote(p, a)

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    parts_weigh(<Parts*>p.own, p, a, s, before)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    parts_unlink(<Parts*>p.own, p, a, s)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef Parts* t = <Parts*>p.own
    return t.lists[PROBATION].tail if t.lists[PROBATION].n else t.lists[PROTECTED].tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return parts_after(<Parts*>p.own, a, s)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    return parts_sound(<Parts*>p.own, p, a) and (<Parts*>p.own).held[PROTECTED] <= p.capacity * 4 / 5 * (1 + 1e-9)

cdef inline void release(Policy* p) noexcept nogil:
    free(p.own)

cdef inline int bind(Policy* p) noexcept nogil:
    p.own = calloc(1, sizeof(Parts))
    if p.own is NULL:
        return -1
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.weigh = weigh
    p.resize = _demote
    p.free = release
    return 0

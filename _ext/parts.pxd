"""The parts among which a policy divides what is held: each a list, newest first, and the weight of what is on it.

A slot's `visited` says which part it is in. Walks go through the parts in the order of their numbers, from the oldest.
"""
from libc.stdint cimport uint32_t
from arena cimport Arena, NIL
from ilist cimport IList, ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy, policy_weight

cdef enum:
    PARTS = 3               # who needs fewer leaves the last ones empty

cdef struct Parts:
    IList lists[PARTS]
    double held[PARTS]      # weights

cdef inline void parts_push(Parts* t, Policy* p, Arena* a, int where, uint32_t s) noexcept nogil:
    a.slots[s].visited = <unsigned char>where
    ilist_push_front(a, &t.lists[where], s)
    t.held[where] += policy_weight(p, s)

cdef inline void parts_unlink(Parts* t, Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef int where = a.slots[s].visited
    ilist_unlink(a, &t.lists[where], s)
    # Of nothing the weight is nothing, whatever rounding has left.
    t.held[where] = t.held[where] - policy_weight(p, s) if t.lists[where].n else 0

cdef inline void parts_move(Parts* t, Policy* p, Arena* a, int where, uint32_t s) noexcept nogil:
    """To the front of another part."""
    parts_unlink(t, p, a, s)
    parts_push(t, p, a, where, s)

cdef inline void parts_renew(Parts* t, Arena* a, uint32_t s) noexcept nogil:
    """To the front of the part where it is."""
    cdef IList* l = &t.lists[a.slots[s].visited]
    if l.head != s:
        ilist_unlink(a, l, s)
        ilist_push_front(a, l, s)

cdef inline void parts_weigh(Parts* t, Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    t.held[a.slots[s].visited] += policy_weight(p, s) - before

cdef inline uint32_t parts_after(Parts* t, Arena* a, uint32_t s) noexcept nogil:
    cdef int where = 0
    if s != NIL:
        if a.slots[s].prev != NIL:
            return a.slots[s].prev
        where = a.slots[s].visited + 1
    while where < PARTS and t.lists[where].n == 0:
        where += 1
    return t.lists[where].tail if where < PARTS else NIL

cdef inline bint parts_sound(Parts* t, Policy* p, Arena* a) noexcept nogil:
    """Everything held is in the part that it says, and each part weighs what is in it."""
    cdef uint32_t s, n = 0
    cdef int where
    cdef double total, error
    for where in range(PARTS):
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
        error = total - t.held[where]
        if not -1e-9 * (1 + total) <= error <= 1e-9 * (1 + total):
            return False
    return n == a.n

"""A doubly linked list of slot numbers, newest at the head."""
from libc.stdint cimport uint32_t
from arena cimport Arena, NIL

cdef struct IList:
    uint32_t head
    uint32_t tail
    uint32_t n

cdef inline void ilist_push_front(Arena* a, IList* l, uint32_t s) noexcept nogil:
    a.slots[s].prev = NIL
    a.slots[s].next = l.head
    if l.head != NIL:
        a.slots[l.head].prev = s
    else:
        l.tail = s
    l.head = s
    l.n += 1

cdef inline void ilist_insert_before(Arena* a, IList* l, uint32_t s, uint32_t q) noexcept nogil:
    """Newer than `q` by one place; NIL: the oldest of all."""
    cdef uint32_t p = a.slots[q].prev if q != NIL else l.tail
    a.slots[s].prev = p
    a.slots[s].next = q
    if p != NIL:
        a.slots[p].next = s
    else:
        l.head = s
    if q != NIL:
        a.slots[q].prev = s
    else:
        l.tail = s
    l.n += 1

cdef inline void ilist_unlink(Arena* a, IList* l, uint32_t s) noexcept nogil:
    cdef uint32_t p = a.slots[s].prev, q = a.slots[s].next
    if p != NIL:
        a.slots[p].next = q
    else:
        l.head = q
    if q != NIL:
        a.slots[q].prev = p
    else:
        l.tail = p
    l.n -= 1

cdef inline bint ilist_sound(Arena* a, IList* l) noexcept nogil:
    """Links agree in both directions and count `l.n` used slots."""
    cdef uint32_t s = l.head, n = 0, prev = NIL
    while s != NIL:
        if a.slots[s].prev != prev or not a.slots[s].used or n >= l.n:
            return False
        prev = s
        s = a.slots[s].next
        n += 1
    return n == l.n and l.tail == prev

"""A fixed ring of event records that overwrites the oldest: what the core tells the learner.

The request path only ever writes; a learner that falls behind loses the oldest events and
`lost` says how many. Nothing waits for anything.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    APP = 8                 # application features an access may carry

cdef enum Kind:
    GOT = 0                 # a request that was answered
    MISSED = 1              # a request that was not
    STORED = 2              # a value came in, after a miss or as a write
    REMOVED = 3             # the user deleted the entry
    EVICTED = 4             # capacity pushed it out

cdef struct Touch:
    double size
    double cost             # < 0: unknown
    uint16_t ns
    uint16_t n_features
    float number[APP]
    uint16_t code[APP]      # > 0: a category, and `number` is ignored

cdef struct Event:
    int64_t hash
    int64_t now
    int64_t before          # of `again` requests since the last event of the key, when the latest came
    uint8_t kind
    uint8_t has_touch
    uint8_t again           # requests that were answered and not told one by one
    Touch touch

cdef struct Ring:
    Event* events
    uint32_t mask
    uint64_t head           # written
    uint64_t tail           # read
    uint64_t lost

cdef inline int ring_init(Ring* r, uint32_t size) noexcept nogil:
    """`size` must be a power of two."""
    r.events = <Event*>calloc(size, sizeof(Event))
    if r.events is NULL:
        return -1
    r.mask = size - 1
    r.head = 0
    r.tail = 0
    r.lost = 0
    return 0

cdef inline Event* ring_push(Ring* r) noexcept nogil:
    """The record to fill in. The oldest unread one makes room when the ring is full."""
    cdef Event* e = &r.events[r.head & r.mask]
    if r.head - r.tail > r.mask:
        r.tail += 1
        r.lost += 1
    r.head += 1
    return e

cdef inline Event* ring_pop(Ring* r) noexcept nogil:
    """The oldest unread record, good until the next push; NULL when there is none."""
    cdef Event* e
    if r.tail == r.head:
        return NULL
    e = &r.events[r.tail & r.mask]
    r.tail += 1
    return e

cdef inline void ring_free(Ring* r) noexcept nogil:
    free(r.events)
    r.events = NULL

"""The per-key record: 24 bytes of history beside each entry, updated on a hit.

Gaps and counts are kept as small logarithmic classes, since that is all that a decision reads.
`last` alone is exact: the promise counts re-requests by it.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from bins cimport bin_of

cdef struct Record:
    int64_t last        # last access, nanoseconds
    uint32_t born       # first access, in units of 2**24 ns (16.8 ms), modulo 2**32
    uint16_t ns         # namespace number, 0 = none
    uint8_t gap1        # 1 + bin of the latest gap between two accesses, 0 = unknown
    uint8_t gap2        # the gap before it
    uint8_t count       # accesses: exact up to 15, then 16 classes to the octave
    uint8_t size_class  # octave of the size; of an entry, requests that the learner has not been told of
    uint8_t cost_class  # octave of the miss cost, offset by 64; of an entry, the time in which they are told once, as a shift
    uint8_t bound       # of an entry: what decided how long it is held; see expiry.pxd

cdef inline uint8_t count_up(uint8_t c, uint32_t noise) noexcept nogil:
    """Morris' counter above 15: one step in 2**k on average (CACM 1978)."""
    cdef int k
    if c < 15:
        return c + 1
    if c == 255:
        return c
    k = (c - 15) // 16 + 1
    if k > 24:
        k = 24
    return c + 1 if (noise & ((<uint32_t>1 << k) - 1)) == 0 else c

cdef inline int count_bucket(uint8_t c) noexcept nogil:
    """0: once, 1: twice, 2: up to 4, 3: up to 9, 4: more."""
    if c <= 1:
        return 0
    if c == 2:
        return 1
    if c <= 4:
        return 2
    return 3 if c <= 9 else 4

cdef inline int octave(double x) noexcept nogil:
    """floor(log2(x)) + 64 for 2**-64 < x < 2**63, clipped to 0 .. 127."""
    cdef int k = 64
    if not x > 0:
        return 0
    while x >= 2 and k < 127:
        x *= 0.5
        k += 1
    while x < 1 and k > 0:
        x *= 2
        k -= 1
    return k

cdef inline void record_start(Record* r, int64_t now, double size, double cost, uint16_t ns) noexcept nogil:
    r.last = now
    r.born = <uint32_t>(now >> 24)
    r.gap1 = 0
    r.gap2 = 0
    r.count = 1
    r.ns = ns
    r.size_class = <uint8_t>octave(size)
    r.cost_class = <uint8_t>octave(cost)
    r.bound = 0

cdef inline void record_touch(Record* r, int64_t now) noexcept nogil:
    r.gap2 = r.gap1
    r.gap1 = <uint8_t>(1 + bin_of(now - r.last))
    r.count = count_up(r.count, <uint32_t>(now >> 7) * <uint32_t>2654435761 >> 8)
    r.last = now

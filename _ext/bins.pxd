"""Bins of time: two to the octave, on a fixed absolute grid.

Bin j holds ages in [edge(j), edge(j + 1)), edge(j) = 2**((j + FIRST) / 2) nanoseconds. Absolute
bins let keys of different size and cost share what they teach: size moves the price of waiting,
not the time of the next request.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from wheel cimport ac_clz64

cdef enum:
    NB = 108            # bins 0 .. NB - 1: half a microsecond to 292 years
    FIRST = 18

cdef inline int64_t edge(int j) noexcept nogil:
    cdef int e = (j + FIRST) >> 1
    if j >= NB:
        return INT64_MAX
    if (j + FIRST) & 1:
        return <int64_t>(1.4142135623730951 * <double>(<uint64_t>1 << e))
    return <int64_t>(<uint64_t>1 << e)

cdef inline int bin_of(int64_t age) noexcept nogil:
    cdef int e, j
    if age <= 0:
        return 0
    e = 63 - ac_clz64(<uint64_t>age)
    j = 2 * e - FIRST
    if age >= <int64_t>(1.4142135623730951 * <double>(<uint64_t>1 << e)):
        j += 1
    return 0 if j < 0 else (NB - 1 if j >= NB else j)

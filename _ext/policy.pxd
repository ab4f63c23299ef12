"""The five questions that an eviction policy answers. Each policy is one file that binds them.

A policy sees slot numbers and never an object, so the live cache and the simulator run the
same compiled policy. `victim` only names a slot; the caller removes it and so calls `on_remove`.
"""
from libc.stdint cimport uint32_t
from arena cimport Arena
from ilist cimport IList

cdef struct Policy:
    IList order
    uint32_t hand
    void (*on_insert)(Policy*, Arena*, uint32_t) noexcept nogil
    void (*on_hit)(Policy*, Arena*, uint32_t) noexcept nogil
    void (*on_remove)(Policy*, Arena*, uint32_t) noexcept nogil
    uint32_t (*victim)(Policy*, Arena*) noexcept nogil   # NIL when nothing is held
    bint (*check)(Policy*, Arena*) noexcept nogil        # every invariant holds

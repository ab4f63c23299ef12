"""Hash to slot: open addressing with linear probing and backward-shift deletion.

The table knows hashes and slot numbers, never keys: who looks up walks the candidates with
`table_first` / `table_next` and compares keys itself. A comparison may run user code, so
`version` changes with every insertion, removal and growth: whoever ran user code compares it
afterwards and starts again if it moved.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from arena cimport NIL

cdef struct TableCell:
    uint32_t slot       # NIL = empty
    uint32_t tag        # 32 mixed bits of the hash; its low bits are the home position

cdef struct Table:
    TableCell* cells
    uint32_t mask
    uint32_t n
    uint64_t version

cdef inline uint32_t tag_of(int64_t hash) noexcept nogil:
    # Integers hash to themselves in Python: without mixing, a stride of 2**k would pile up.
    cdef uint64_t h = <uint64_t>hash
    h ^= h >> 32
    h *= <uint64_t>0x9E3779B97F4A7C15
    return <uint32_t>(h >> 32)

cdef inline int table_init(Table* t, uint32_t expected) noexcept nogil:
    cdef uint32_t size = 8
    while size < 0x40000000 and <uint64_t>size * 2 < <uint64_t>expected * 3:
        size *= 2
    t.cells = <TableCell*>calloc(size, sizeof(TableCell))
    if t.cells is NULL:
        return -1
    t.mask = size - 1
    t.n = 0
    t.version += 1
    return 0

cdef inline void _table_place(Table* t, uint32_t tag, uint32_t slot) noexcept nogil:
    cdef uint32_t i = tag & t.mask
    while t.cells[i].slot != NIL:
        i = (i + 1) & t.mask
    t.cells[i].slot = slot
    t.cells[i].tag = tag

cdef inline int table_reserve(Table* t) noexcept nogil:
    """Room for one more; -1 when memory is out, and then nothing changed."""
    cdef Table bigger
    cdef uint32_t i
    if <uint64_t>(t.n + 1) * 3 <= <uint64_t>t.mask * 2 + 2:
        return 0
    bigger.version = t.version
    if table_init(&bigger, (t.mask + 1) + (t.mask + 1) // 3) < 0:      # twice the cells
        return -1
    for i in range(t.mask + 1):
        if t.cells[i].slot != NIL:
            _table_place(&bigger, t.cells[i].tag, t.cells[i].slot)
    free(t.cells)
    t.cells = bigger.cells
    t.mask = bigger.mask
    t.version += 1
    return 0

cdef inline void table_insert(Table* t, int64_t hash, uint32_t slot) noexcept nogil:
    """Room must have been reserved."""
    _table_place(t, tag_of(hash), slot)
    t.n += 1
    t.version += 1

cdef inline uint32_t table_first(Table* t, uint32_t tag, uint32_t* at) noexcept nogil:
    """The first slot whose hash may be the one behind `tag`, or NIL."""
    cdef uint32_t i = tag & t.mask
    while t.cells[i].slot != NIL:
        if t.cells[i].tag == tag:
            at[0] = i
            return t.cells[i].slot
        i = (i + 1) & t.mask
    return NIL

cdef inline uint32_t table_next(Table* t, uint32_t tag, uint32_t* at) noexcept nogil:
    cdef uint32_t i = (at[0] + 1) & t.mask
    while t.cells[i].slot != NIL:
        if t.cells[i].tag == tag:
            at[0] = i
            return t.cells[i].slot
        i = (i + 1) & t.mask
    return NIL

cdef inline void table_remove(Table* t, int64_t hash, uint32_t slot) noexcept nogil:
    """Forget one slot. Those behind it move up, so no tombstone ever slows a miss."""
    cdef uint32_t i = tag_of(hash) & t.mask, j, home
    while t.cells[i].slot != slot:
        i = (i + 1) & t.mask
    j = i
    while True:
        j = (j + 1) & t.mask
        if t.cells[j].slot == NIL:
            break
        home = t.cells[j].tag & t.mask
        # Movable only if its home does not lie cyclically within (i, j].
        if ((j - home) & t.mask) >= ((j - i) & t.mask):
            t.cells[i] = t.cells[j]
            i = j
    t.cells[i].slot = NIL
    t.n -= 1
    t.version += 1

cdef inline void table_free(Table* t) noexcept nogil:
    free(t.cells)
    t.cells = NULL

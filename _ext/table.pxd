"""Hash to slot: open addressing with linear probing and backward-shift deletion.

The table knows hashes and slot numbers, never keys: who looks up walks the candidates with
`table_first` / `table_next` and compares keys itself. A comparison may run user code, so
`version` changes with every insertion, removal and growth: whoever ran user code compares it
afterwards and starts again if it moved.

Integers hash to themselves in Python, and whoever chooses the keys chooses the hashes: each table mixes them with a
salt of its own, drawn at random, so that nobody outside can make hashes whose cells lie together (Crosby and Wallach,
USENIX Security'03). Nothing that is seen depends on the salt: slots of one hash are met in the order in which they
came, through removals and growth. Against keys that share a whole hash no salt helps; who keeps such keys has to
bound them.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from arena cimport NIL

cdef extern from "mixing.h" nogil:
    uint32_t ac_middle(uint64_t a, uint64_t b) noexcept
    uint64_t ac_random() noexcept

cdef struct Salt:
    uint64_t a
    uint64_t b

cdef struct TableCell:
    uint32_t slot       # NIL = empty
    uint32_t tag        # 32 mixed bits of the hash; its low bits are the home position

cdef struct Table:
    TableCell* cells
    uint32_t mask
    uint32_t n
    Salt salt
    uint64_t version

cdef inline void salt_draw(Salt* salt) noexcept nogil:
    salt.a = ac_random()
    salt.b = ac_random()

cdef inline uint32_t salted(int64_t hash, const Salt* salt) noexcept nogil:
    # Both factors hold the hash: a product with a constant would map a row of equal strides to a row of equal strides.
    cdef uint64_t h = <uint64_t>hash
    return ac_middle(h ^ salt.a, (h << 32 | h >> 32) ^ salt.b)

cdef inline uint32_t table_tag(const Table* t, int64_t hash) noexcept nogil:
    return salted(hash, &t.salt)

cdef inline int table_init(Table* t, uint32_t expected) noexcept nogil:
    salt_draw(&t.salt)
    t.version += 1
    return _table_cells(t, expected)

cdef inline int _table_cells(Table* t, uint32_t expected) noexcept nogil:
    cdef uint32_t size = 8
    while size < 0x40000000 and <uint64_t>size * 2 < <uint64_t>expected * 3:
        size *= 2
    t.cells = <TableCell*>calloc(size, sizeof(TableCell))
    if t.cells is NULL:
        return -1
    t.mask = size - 1
    t.n = 0
    return 0

cdef inline void _table_place(Table* t, uint32_t tag, uint32_t slot) noexcept nogil:
    cdef uint32_t i = tag & t.mask
    while t.cells[i].slot != NIL:
        i = (i + 1) & t.mask
    t.cells[i].slot = slot
    t.cells[i].tag = tag

cdef inline bint table_roomy(const Table* t) noexcept nogil:
    return <uint64_t>(t.n + 1) * 3 <= <uint64_t>t.mask * 2 + 2

cdef inline int table_reserve(Table* t) noexcept nogil:
    """Room for one more; -1 when memory is out, and then nothing changed."""
    cdef Table bigger
    cdef uint32_t i, start = 0
    if table_roomy(t):
        return 0
    if _table_cells(&bigger, (t.mask + 1) + (t.mask + 1) // 3) < 0:        # twice the cells
        return -1
    while t.cells[start].slot != NIL:           # from a gap on, so that a run that goes round the end keeps its order
        start += 1
    for i in range(t.mask + 1):
        if t.cells[(start + i) & t.mask].slot != NIL:
            _table_place(&bigger, t.cells[(start + i) & t.mask].tag, t.cells[(start + i) & t.mask].slot)
    free(t.cells)
    t.cells = bigger.cells
    t.mask = bigger.mask
    t.version += 1
    return 0

cdef inline void table_insert(Table* t, int64_t hash, uint32_t slot) noexcept nogil:
    """Room must have been reserved."""
    _table_place(t, table_tag(t, hash), slot)
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
    cdef uint32_t i = table_tag(t, hash) & t.mask, j, home
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

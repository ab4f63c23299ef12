"""What is remembered of keys that are no longer held: their hashes, in a few lists, each with a weight.

For policies that learn from what they let go. Ghosts have numbers of their own, on an arena and a table of their own;
a policy's slots know nothing of them. Two keys that share a hash are one ghost. The table is keyed by a salted hash,
so that whoever chooses keys cannot choose collisions.

Memory is taken by `ghosts_reserve` alone, so that remembering cannot fail: who has no room left forgets the oldest of
some list first. A ghost takes 32 bytes and 12 to 24 of the table.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset
from arena cimport Arena, NIL, arena_free, arena_give, arena_init, arena_reserve, arena_take
from ilist cimport IList, ilist_push_front, ilist_sound, ilist_unlink
from table cimport (Table, table_first, table_free, table_init, table_insert, table_next, table_remove, tag_of)

cdef enum:
    GHOST_LISTS = 4

cdef struct Ghosts:
    Arena arena                     # a slot's `hash` is salted here, its `visited` the number of its list
    Table table
    double* weights                 # by ghost: its weight, or whatever one number the policy wants to know again
    IList lists[GHOST_LISTS]        # newest first
    double total[GHOST_LISTS]       # of the weights on each list
    uint64_t salt

cdef inline int64_t _ghosts_salted(const Ghosts* g, int64_t hash) noexcept nogil:
    # One to one, so that equal here is equal there.
    cdef uint64_t h = <uint64_t>hash ^ g.salt
    h = (h ^ (h >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    h = (h ^ (h >> 27)) * <uint64_t>0x94D049BB133111EB
    return <int64_t>(h ^ (h >> 31))

cdef inline int ghosts_init(Ghosts* g, uint64_t salt) noexcept nogil:
    """No ghosts, and room for one; -1 when memory is out, and then there is nothing to free."""
    memset(g, 0, sizeof(Ghosts))
    g.salt = salt
    if arena_init(&g.arena, 2) == 0 and table_init(&g.table, 1) == 0:
        g.weights = <double*>malloc(2 * sizeof(double))
    if g.weights is NULL:
        ghosts_free(g)
        return -1
    return 0

cdef inline void ghosts_free(Ghosts* g) noexcept nogil:
    arena_free(&g.arena)
    table_free(&g.table)
    free(g.weights)
    g.weights = NULL

cdef inline int ghosts_reserve(Ghosts* g, uint32_t n) noexcept nogil:
    """Room for `n` ghosts over all lists; -1 when memory is out, and then nothing changed."""
    cdef Table bigger
    cdef double* more
    cdef uint32_t s
    if n < g.arena.cap:
        return 0
    more = <double*>realloc(g.weights, (<size_t>n + 1) * sizeof(double))
    if more is NULL:
        return -1
    g.weights = more
    if <uint64_t>n * 3 > <uint64_t>g.table.mask * 2 + 2:
        bigger.version = g.table.version
        if table_init(&bigger, n) < 0:
            return -1
        for s in range(1, g.arena.top):
            if g.arena.slots[s].used:
                table_insert(&bigger, g.arena.slots[s].hash, s)
        table_free(&g.table)
        g.table = bigger
    return arena_reserve(&g.arena, n + 1)

cdef inline bint ghosts_full(const Ghosts* g) noexcept nogil:
    return g.arena.free_head == NIL and g.arena.top >= g.arena.cap

cdef inline uint32_t ghosts_n(const Ghosts* g) noexcept nogil:
    return g.arena.n

cdef inline uint32_t ghosts_find(const Ghosts* g, int64_t hash) noexcept nogil:
    """The ghost of a hash, or NIL."""
    cdef int64_t h = _ghosts_salted(g, hash)
    cdef uint32_t at = 0, tag = tag_of(h)
    cdef uint32_t s = table_first(<Table*>&g.table, tag, &at)
    while s != NIL and g.arena.slots[s].hash != h:
        s = table_next(<Table*>&g.table, tag, &at)
    return s

cdef inline int ghosts_list(const Ghosts* g, uint32_t s) noexcept nogil:
    """Which list it is on."""
    return g.arena.slots[s].visited

cdef inline uint32_t ghosts_push(Ghosts* g, int64_t hash, int which, double weight) noexcept nogil:
    """Remember a hash that is not remembered yet, as the newest of a list. There must be room."""
    cdef uint32_t s = arena_take(&g.arena)
    g.arena.slots[s].hash = _ghosts_salted(g, hash)
    g.arena.slots[s].visited = <unsigned char>which
    g.weights[s] = weight
    g.total[which] += weight
    ilist_push_front(&g.arena, &g.lists[which], s)
    table_insert(&g.table, g.arena.slots[s].hash, s)
    return s

cdef inline void ghosts_remove(Ghosts* g, uint32_t s) noexcept nogil:
    cdef int which = g.arena.slots[s].visited
    ilist_unlink(&g.arena, &g.lists[which], s)
    table_remove(&g.table, g.arena.slots[s].hash, s)
    # What no ghost weighs is nothing, whatever rounding has left.
    g.total[which] = g.total[which] - g.weights[s] if g.lists[which].n else 0
    arena_give(&g.arena, s)

cdef inline uint32_t ghosts_oldest(const Ghosts* g, int which) noexcept nogil:
    """The oldest of a list, or NIL."""
    return g.lists[which].tail

cdef inline void ghosts_pop(Ghosts* g, int which) noexcept nogil:
    """Forget the oldest of a list, if there is one."""
    if g.lists[which].tail != NIL:
        ghosts_remove(g, g.lists[which].tail)

cdef inline void ghosts_clear(Ghosts* g) noexcept nogil:
    cdef int which
    for which in range(GHOST_LISTS):
        while g.lists[which].n:
            ghosts_pop(g, which)

cdef inline bint ghosts_sound(Ghosts* g) noexcept nogil:
    """Every ghost is on one list, can be found, and is counted, with its weight."""
    cdef uint32_t s, r, at = 0, n = 0
    cdef int which
    cdef double total, size
    if g.table.n != g.arena.n or <uint64_t>g.arena.n * 3 > <uint64_t>g.table.mask * 2 + 2:
        return False
    for which in range(GHOST_LISTS):
        if not ilist_sound(&g.arena, &g.lists[which]):
            return False
        n += g.lists[which].n
        total = size = 0
        s = g.lists[which].head
        while s != NIL:
            total += g.weights[s]
            size += g.weights[s] if g.weights[s] >= 0 else -g.weights[s]
            if g.arena.slots[s].visited != which:
                return False
            r = table_first(&g.table, tag_of(g.arena.slots[s].hash), &at)
            while r != NIL and r != s:
                r = table_next(&g.table, tag_of(g.arena.slots[s].hash), &at)
            if r != s:
                return False
            s = g.arena.slots[s].next
        if not -1e-6 * (1 + size) <= total - g.total[which] <= 1e-6 * (1 + size):
            return False
    return n == g.arena.n

# Replay of a stream: the policies of the live cache behind its own table from hash to slot, so that nothing is kept
# of a key that is not held, and a trace may be longer than any memory. PolicyReplay is for a trace whose keys have
# been numbered, and needs the future only for belady, which cannot be had here.

cdef enum:
    STREAM_FAR = 16         # rows ahead of which the table's cell is fetched; a power of two
    STREAM_NEAR = 8         # and those ahead of which the slot that it names is
    MOST_HELD = 1 << 29     # what the table's 2**30 cells can hold without becoming full

cdef class StreamReplay:
    """Hit counts of one policy at one capacity (entries) on a stream of 64-bit key hashes, chunk by chunk.

    Two keys of one hash are one key. Memory is in proportion to the capacity, whatever the stream's length and
    number of keys. salt: of the policy.
    """
    cdef Arena arena
    cdef Table table
    cdef Policy policy
    cdef uint32_t capacity
    cdef readonly uint64_t requests
    cdef readonly uint64_t hits
    cdef readonly double bytes_requested
    cdef readonly double bytes_hit
    cdef readonly double cost_requested     # what the gets would cost if each missed; 0 without costs
    cdef readonly double cost_missed

    def __cinit__(self, str policy, double capacity, salt=0):
        if not 1 <= capacity <= MOST_HELD:
            raise ValueError(f"capacity: {capacity!r} is not accepted; the accepted range is 1 to {MOST_HELD} entries")
        if policy in ("belady", "belady-bypass"):
            raise ValueError(f"policy: {policy!r} knows the future, and a stream has none yet; PolicyReplay takes it")
        self.capacity = <uint32_t>capacity
        if arena_init(&self.arena, self.capacity + 1) < 0 or table_init(&self.table, self.capacity + 1) < 0:
            raise MemoryError
        bind_policy(&self.policy, policy, self.capacity, salt)
        if self.policy.reserve is not NULL and self.policy.reserve(&self.policy, self.capacity + 2) < 0:
            raise MemoryError

    def __dealloc__(self):
        free_policy(&self.policy)
        table_free(&self.table)
        arena_free(&self.arena)

    @property
    def held(self):
        """Entries that the cache holds now."""
        return self.arena.n

    @property
    def ways(self):
        """For a policy that follows now one way of deciding, now another: the rows that each was followed for. Else None."""
        return policy_ways(&self.policy)

    def run(self, const uint64_t[::1] hashes, const double[::1] size=None, const uint8_t[::1] op=None,
            const double[::1] cost=None):
        """The next rows. size: bytes, for the byte hit ratio. op: None = every row is a get that inserts on a
        miss; else 0 get, 1 set, 2 delete, and only gets count. cost: of a miss of each row; it is counted, no policy
        is told. ValueError where the columns differ in length.
        """
        cdef Py_ssize_t i, n = hashes.shape[0]
        cdef uint32_t tags[STREAM_FAR]
        cdef uint32_t s, tag, at
        cdef int64_t hash
        cdef double b, c
        cdef int what
        if (size is not None and size.shape[0] != n) or (op is not None and op.shape[0] != n) \
                or (cost is not None and cost.shape[0] != n):
            raise ValueError("size, op, cost: not as long as hashes")
        with nogil:
            for i in range(n if n < STREAM_FAR else STREAM_FAR):
                tags[i] = table_tag(&self.table, <int64_t>hashes[i])
            for i in range(n):
                tag = tags[i & (STREAM_FAR - 1)]
                if i + STREAM_FAR < n:
                    at = table_tag(&self.table, <int64_t>hashes[i + STREAM_FAR])
                    tags[i & (STREAM_FAR - 1)] = at
                    AC_PREFETCH(&self.table.cells[at & self.table.mask])
                if i + STREAM_NEAR < n:
                    at = tags[(i + STREAM_NEAR) & (STREAM_FAR - 1)]
                    AC_PREFETCH(&self.arena.slots[self.table.cells[at & self.table.mask].slot])
                hash = <int64_t>hashes[i]
                b = size[i] if size is not None else 1
                c = cost[i] if cost is not None else 0
                what = op[i] if op is not None else 0
                s = table_first(&self.table, tag, &at)
                while s != NIL and self.arena.slots[s].hash != hash:
                    s = table_next(&self.table, tag, &at)
                if what == 2:
                    if s != NIL:
                        self._remove(s, False)
                    continue
                if what == 0:
                    self.requests += 1
                    self.bytes_requested += b
                    self.cost_requested += c
                if s != NIL:
                    if what == 0:
                        self.hits += 1
                        self.bytes_hit += b
                    self.policy.on_hit(&self.policy, &self.arena, s)
                    continue
                if what == 0:
                    self.cost_missed += c
                if self.policy.on_coming is not NULL:
                    self.policy.on_coming(&self.policy, &self.arena, hash, 1)
                if self.arena.n >= self.capacity:
                    self._remove(self.policy.victim(&self.policy, &self.arena), True)
                s = arena_take(&self.arena)
                self.arena.slots[s].hash = hash
                table_insert(&self.table, hash, s)
                self.policy.on_insert(&self.policy, &self.arena, s)

    cdef inline void _remove(self, uint32_t s, bint evicted) noexcept nogil:
        self.policy.on_remove(&self.policy, &self.arena, s, evicted)
        table_remove(&self.table, self.arena.slots[s].hash, s)
        arena_give(&self.arena, s)

    def _check(self):
        """Assert that structures agree."""
        if self.table.n != self.arena.n:
            raise AssertionError("table and arena count differently")
        if self.arena.n > self.capacity:
            raise AssertionError("more is held than there is room for")
        if not self.policy.check(&self.policy, &self.arena):
            raise AssertionError("the policy is damaged")

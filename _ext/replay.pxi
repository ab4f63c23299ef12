# Replay: the simulator's loops. The policies and the expiry are the live cache's own; only the
# keys differ, dense numbers here, so that no Python object is touched in the loop.

cdef class PolicyReplay:
    """Hit counts of one policy at one capacity (entries) on a trace of dense key numbers. salt: of the policy.

    `belady` and `belady-bypass` are the offline optima of caches that must admit and that may refuse.
    """
    cdef Arena arena
    cdef Policy policy
    cdef Belady belady
    cdef bint offline
    cdef bint bypass
    cdef uint32_t capacity
    cdef uint32_t n_keys
    cdef uint32_t* slot_of
    cdef uint32_t* key_of
    cdef readonly uint64_t requests
    cdef readonly uint64_t hits
    cdef readonly double bytes_requested
    cdef readonly double bytes_hit
    cdef readonly double cost_requested     # what the gets would cost if each missed; 0 without costs
    cdef readonly double cost_missed

    def __cinit__(self, str policy, double capacity, uint32_t n_keys, salt=0):
        if not capacity >= 1:
            raise ValueError(f"capacity: {capacity!r} is not accepted; the accepted range is one entry or more")
        self.capacity = <uint32_t>capacity if capacity < n_keys + 1.0 else n_keys + 1
        self.n_keys = n_keys
        self.bypass = policy == "belady-bypass"
        self.offline = self.bypass or policy == "belady"
        self.slot_of = <uint32_t*>calloc(<size_t>n_keys + 1, sizeof(uint32_t))
        self.key_of = <uint32_t*>calloc(<size_t>self.capacity + 2, sizeof(uint32_t))
        if self.slot_of is NULL or self.key_of is NULL or arena_init(&self.arena, self.capacity + 1) < 0:
            raise MemoryError
        if not self.offline:
            bind_policy(&self.policy, policy, self.capacity, salt)
            if self.policy.reserve is not NULL and self.policy.reserve(&self.policy, self.capacity + 2) < 0:
                raise MemoryError
        elif belady_init(&self.belady, self.capacity + 2) < 0:
            raise MemoryError

    def __dealloc__(self):
        free_policy(&self.policy)
        arena_free(&self.arena)
        belady_free(&self.belady)
        free(self.slot_of)
        free(self.key_of)

    @property
    def ways(self):
        """For a policy that follows now one way of deciding, now another: the rows that each was followed for. Else None."""
        return policy_ways(&self.policy)

    def run(self, const uint32_t[::1] key, const double[::1] size, const uint8_t[::1] op,
            const int64_t[::1] next_use, Py_ssize_t start, Py_ssize_t stop, const double[::1] cost=None):
        """Rows start .. stop - 1. size: bytes, for the byte hit ratio. op: None = every row is a get
        that inserts on a miss; else 0 get, 1 set, 2 delete, and only gets count. next_use: for belady.
        cost: of a miss of each row; it is counted, no policy is told.
        """
        cdef Py_ssize_t i
        cdef uint32_t k, s
        cdef double b, c
        cdef int what
        if start < 0 or stop > key.shape[0]:
            raise ValueError("start, stop: rows outside the trace")
        if (size is not None and size.shape[0] < stop) or (op is not None and op.shape[0] < stop) \
                or (next_use is not None and next_use.shape[0] < stop) or (cost is not None and cost.shape[0] < stop):
            raise ValueError("size, op, next_use, cost: shorter than the trace")
        if self.offline and next_use is None:
            raise ValueError("next_use: belady needs it")
        for i in range(start, stop):
            if key[i] >= self.n_keys:
                raise ValueError(f"key: row {i} has key {key[i]}, not below n_keys = {self.n_keys}")
        with nogil:
            for i in range(start, stop):
                k = key[i]
                b = size[i] if size is not None else 1
                c = cost[i] if cost is not None else 0
                what = op[i] if op is not None else 0
                s = self.slot_of[k]
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
                    if self.offline:
                        belady_hit(&self.belady, s, next_use[i])
                    else:
                        self.policy.on_hit(&self.policy, &self.arena, s)
                    continue
                if what == 0:
                    self.cost_missed += c
                if self.policy.on_coming is not NULL:
                    self.policy.on_coming(&self.policy, &self.arena, k, 1)
                if self.arena.n >= self.capacity:
                    if self.offline:
                        if self.bypass and belady_refuses(&self.belady, next_use[i]):
                            continue
                        s = belady_victim(&self.belady)
                    else:
                        s = self.policy.victim(&self.policy, &self.arena)
                    self._remove(s, True)
                s = arena_take(&self.arena)
                self.slot_of[k] = s
                self.key_of[s] = k
                self.arena.slots[s].hash = k
                if self.offline:
                    belady_insert(&self.belady, s, next_use[i])
                else:
                    self.policy.on_insert(&self.policy, &self.arena, s)

    cdef inline void _remove(self, uint32_t s, bint evicted) noexcept nogil:
        if self.offline:
            belady_remove(&self.belady, s)
        else:
            self.policy.on_remove(&self.policy, &self.arena, s, evicted)
        self.slot_of[self.key_of[s]] = NIL
        arena_give(&self.arena, s)


cdef class StackDistances:
    """How deep in an LRU stack each request finds its key: the hits of LRU at every capacity, in one pass.

    Mattson et al. 1970 saw that LRU of C entries holds the C keys asked for last, so a request hits there iff at most
    C - 1 other keys were asked for since its own last request. Olken 1981 counts them in a tree: a Fenwick tree over
    moments, in which the latest request of each key is marked. Moments are numbered anew, in their order, when the
    tree runs out of them, so it has room for two moments a key and not for one a row: O(rows * log keys) time,
    24 bytes a key.
    """
    cdef uint32_t n_keys
    cdef uint32_t moments           # 1 .. moments - 1 are places in the tree; 0 is "never"
    cdef uint32_t now
    cdef uint32_t held
    cdef uint32_t* tree
    cdef uint32_t* last             # by key: the moment of its latest request
    cdef uint32_t* key_at           # by moment: whose latest request that may have been
    cdef uint64_t* at_distance      # 1 .. n_keys: hits that need exactly so many entries
    cdef readonly uint64_t requests

    def __cinit__(self, uint32_t n_keys):
        cdef size_t n = <size_t>n_keys + 1
        if n_keys > 0x3fffffff:
            raise ValueError(f"n_keys: {n_keys} is not accepted; the accepted range is at most {0x3fffffff}")
        self.n_keys = n_keys
        self.moments = 2 * n_keys + 16
        self.tree = <uint32_t*>calloc(self.moments, sizeof(uint32_t))
        self.last = <uint32_t*>calloc(n, sizeof(uint32_t))
        self.key_at = <uint32_t*>calloc(self.moments, sizeof(uint32_t))
        self.at_distance = <uint64_t*>calloc(n, sizeof(uint64_t))
        if self.tree is NULL or self.last is NULL or self.key_at is NULL or self.at_distance is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.tree)
        free(self.last)
        free(self.key_at)
        free(self.at_distance)

    def run(self, const uint32_t[::1] key, Py_ssize_t start, Py_ssize_t stop):
        """Rows start .. stop - 1, each a get that inserts on a miss."""
        cdef Py_ssize_t i
        cdef uint32_t k, at
        if start < 0 or stop > key.shape[0]:
            raise ValueError("start, stop: rows outside the trace")
        for i in range(start, stop):
            if key[i] >= self.n_keys:
                raise ValueError(f"key: row {i} has key {key[i]}, not below n_keys = {self.n_keys}")
        with nogil:
            for i in range(start, stop):
                k = key[i]
                if self.now + 1 == self.moments:
                    self._renumber()
                self.now += 1
                at = self.last[k]
                if at:
                    self.at_distance[self.held - self._sum(at) + 1] += 1
                    self._add(at, <uint32_t>-1)
                else:
                    self.held += 1
                self._add(self.now, 1)
                self.last[k] = self.now
                self.key_at[self.now] = k
            self.requests += stop - start

    cdef inline uint32_t _sum(self, uint32_t i) noexcept nogil:
        """Keys whose latest request was at moment i or before."""
        cdef uint32_t total = 0
        while i:
            total += self.tree[i]
            i &= i - 1
        return total

    cdef inline void _add(self, uint32_t i, uint32_t what) noexcept nogil:
        while i < self.moments:
            self.tree[i] += what
            i += i & (~i + 1)

    cdef void _renumber(self) noexcept nogil:
        cdef uint32_t old, new = 0, above
        for old in range(1, self.now + 1):
            if self.last[self.key_at[old]] == old:
                new += 1
                self.key_at[new] = self.key_at[old]
                self.last[self.key_at[new]] = new
        self.now = new
        memset(self.tree, 0, <size_t>self.moments * sizeof(uint32_t))
        for old in range(1, self.moments):
            if old <= new:
                self.tree[old] += 1
            above = old + (old & (~old + 1))
            if above < self.moments:
                self.tree[above] += self.tree[old]

    def hits(self):
        """uint64[n_keys + 1]: the hits so far of an LRU cache of 0, 1, … n_keys entries."""
        cdef uint32_t i
        cdef uint64_t[::1] out = np.zeros(<Py_ssize_t>self.n_keys + 1, np.uint64)
        for i in range(1, self.n_keys + 1):
            out[i] = out[i - 1] + self.at_distance[i]
        return np.asarray(out)


cdef class ExpiryReplay:
    """An expiry over a timed trace without a capacity limit, and what it cost.

    kind: 1 fixed from the store, 2 idle, 4 learned (with a brain). ttl: seconds, for 1 and 2.
    stale: for 4, the budget of learned validities, which the trace's versions are compared for; a reload, in
    the background too, happens at the moment of the read that asks for it.
    price: cost per unit of size and second. n_keys: keys are 0 .. n_keys - 1.
    """
    cdef Arena arena
    cdef Table table
    cdef Expiry x
    cdef Brain brain
    cdef uint32_t n_keys
    cdef double price
    cdef uint32_t* slot_of
    cdef uint32_t* key_of
    cdef int64_t* since
    cdef double* held_size
    cdef uint32_t* held_version
    cdef readonly uint64_t requests
    cdef readonly uint64_t misses
    cdef readonly uint64_t stale_hits
    cdef readonly double miss_cost
    cdef readonly double hold_cost
    cdef readonly uint64_t refreshes    # reloads that freshness asked for: in the background, and misses after a validity ended
    cdef readonly double refresh_cost   # of those in the background
    cdef uint8_t* staled                # was the key's last entry let go at the end of its validity?
    cdef bint broken
    cdef int64_t seen               # the time of the latest row

    def __cinit__(self, int kind, uint32_t n_keys, *, double price, double now, double ttl=0.0, Brain brain=None,
                  double alpha=0.01, bint expected=False, double floor=0.0, stale=None, uint64_t seed=0):
        cdef size_t n = <size_t>n_keys + 2
        self.n_keys = n_keys
        self.price = price
        self.seen = to_ns(now)
        self.slot_of = <uint32_t*>calloc(n, sizeof(uint32_t))
        self.key_of = <uint32_t*>calloc(n, sizeof(uint32_t))
        self.since = <int64_t*>calloc(n, sizeof(int64_t))
        self.held_size = <double*>calloc(n, sizeof(double))
        self.held_version = <uint32_t*>calloc(n, sizeof(uint32_t))
        self.staled = <uint8_t*>calloc(n, 1)
        if self.slot_of is NULL or self.key_of is NULL or self.since is NULL or self.held_size is NULL \
                or self.held_version is NULL or self.staled is NULL or arena_init(&self.arena, n_keys + 2) < 0 \
                or table_init(&self.table, n_keys + 2) < 0 \
                or expiry_init(&self.x, kind, to_ns(now), &self.arena, &self.table) < 0:
            raise MemoryError
        self.x.ttl = to_ns(ttl)
        self.x.floor_ = to_ns(floor)
        if expiry_reserve(&self.x, self.arena.cap) < 0:
            raise MemoryError
        if kind == LEARNED:
            if brain is None:
                raise ValueError("brain: a learned expiry needs one")
            self.brain = brain
            self.x.engine = brain.g
            self.x.guard.alpha = alpha
            self.x.guard.expected = expected
            if stale is not None and expiry_learn_fresh(&self.x, stale, seed, n_keys + 1) < 0:
                raise MemoryError

    def __dealloc__(self):
        arena_free(&self.arena)
        table_free(&self.table)
        self.x.engine = NULL
        expiry_free(&self.x)
        free(self.staled)
        _journal_gone(self.x.journal)
        free(self.slot_of)
        free(self.key_of)
        free(self.since)
        free(self.held_size)
        free(self.held_version)

    def run(self, const uint32_t[::1] key, const double[::1] time, const double[::1] size, const double[::1] cost,
            const uint8_t[::1] op, const uint32_t[::1] version, const uint16_t[::1] namespace,
            const float[:, ::1] number, const uint16_t[:, ::1] code, Py_ssize_t start, Py_ssize_t stop):
        """Rows start .. stop - 1. op: 0 get (loads on a miss), 1 set (free), 2 delete; None = all gets.

        number, code: (rows, features); a code above 0 is a category and its number is ignored.
        """
        cdef Py_ssize_t i
        cdef int d, n_features = 0
        cdef uint32_t k, s
        cdef int64_t now
        cdef Touch touch
        cdef int what, verdict
        if self.x.fresh is not NULL and version is None:
            raise ValueError("version: learned validity needs the versions of the values")
        if start < 0 or stop > key.shape[0] or time.shape[0] < stop or size.shape[0] < stop or cost.shape[0] < stop \
                or (op is not None and op.shape[0] < stop) or (version is not None and version.shape[0] < stop) \
                or (namespace is not None and namespace.shape[0] < stop):
            raise ValueError("start, stop: rows outside the trace")
        if number is not None:
            n_features = <int>number.shape[1]
            if number.shape[0] < stop or code is None or code.shape[0] < stop or code.shape[1] != n_features \
                    or n_features > APP:
                raise ValueError(f"number, code: expected two arrays of (rows, at most {APP})")
        for i in range(start, stop):
            if key[i] >= self.n_keys:
                raise ValueError(f"key: row {i} has key {key[i]}, not below n_keys = {self.n_keys}")
        with nogil:
            memset(&touch, 0, sizeof(Touch))
            for i in range(start, stop):
                k = key[i]
                now = to_ns(time[i])
                what = op[i] if op is not None else 0
                touch.size = size[i]
                touch.cost = cost[i]
                touch.ns = namespace[i] if namespace is not None else 0
                touch.n_features = <uint16_t>n_features
                for d in range(n_features):
                    touch.number[d] = number[i, d]
                    touch.code[d] = code[i, d]
                self._due(now)
                s = self.slot_of[k]
                if s != NIL:
                    if what == 0 and self.x.fresh is not NULL:
                        expiry_review(&self.x, s, now)
                    self._let_go_if_due(s, now)
                    s = self.slot_of[k]
                if what == 2:
                    if s != NIL:
                        expiry_end(&self.x, s, now, REMOVED)
                        self._remove(s, now)
                    else:
                        expiry_absent(&self.x, k, now, True)
                    continue
                if what == 0:
                    self.requests += 1
                    if s != NIL:
                        if version is not None and self.held_version[s] != version[i]:
                            self.stale_hits += 1
                        verdict = SERVE
                        if life_fresh(&self.x, s) != NIL:
                            verdict = fresh_read(self.x.fresh, self.x.freshers[s], now, 0)
                        expiry_hit(&self.x, s, now, &touch)
                        if verdict != SERVE:
                            self.refreshes += 1
                            self.refresh_cost += cost[i]
                            expiry_fresh(&self.x, s, now, touch.ns, False, True, version[i])
                            expiry_renew(&self.x, s, now, INT64_MAX)
                            self.held_version[s] = version[i]
                        continue
                    self.misses += 1
                    self.miss_cost += cost[i]
                    self.refreshes += self.staled[k]
                    expiry_miss(&self.x, k, now, &touch, True)
                self.staled[k] = 0
                if s == NIL:
                    s = arena_take(&self.arena)
                    self.arena.slots[s].hash = k
                    table_insert(&self.table, k, s)
                    self.slot_of[k] = s
                    self.key_of[s] = k
                    self.since[s] = now
                    self.held_size[s] = size[i]
                    guard_forgive(&self.x.guard, k)
                    if self.x.fresh is not NULL:
                        expiry_fresh(&self.x, s, now, touch.ns, False, True, version[i])
                    expiry_begin(&self.x, s, now, INT64_MAX, &touch, False)
                else:
                    if self.x.fresh is not NULL:
                        expiry_fresh(&self.x, s, now, touch.ns, False, True, version[i])
                    expiry_begin(&self.x, s, now, INT64_MAX, &touch, True)
                self.held_version[s] = version[i] if version is not None else 0
            if stop > start:
                self.seen = now

    cdef void _due(self, int64_t now) noexcept nogil:
        cdef int budget = 2147483647
        cdef int64_t at
        cdef uint32_t s
        if now < expiry_next(&self.x):
            return
        while True:
            s = expiry_due(&self.x, now, &at, &budget)
            if s == NIL:
                break
            self._remove(s, at)
        self._watch()

    cdef void _let_go_if_due(self, uint32_t s, int64_t now) noexcept nogil:
        cdef int64_t at
        if now >= expiry_due_at(&self.x, s) and expiry_gone(&self.x, s, now, &at):
            expiry_end(&self.x, s, at, EVICTED)
            self._remove(s, at)

    cdef void _watch(self) noexcept nogil:
        cdef Guard* g = &self.x.guard
        if g.alpha < 1 and not g.expected and g.lost + g.ghosts.n > g.alpha * <double>g.protected_ + 1:
            self.broken = True

    cdef void _remove(self, uint32_t s, int64_t at) noexcept nogil:
        self.hold_cost += <double>(at - self.since[s]) * 1e-9 * self.held_size[s] * self.price
        if self.x.fresh is not NULL:
            self.staled[self.key_of[s]] = self.x.lives[s].rec.bound == BY_FRESHNESS
            _expiry_detach(&self.x, s)
        table_remove(&self.table, self.arena.slots[s].hash, s)
        self.slot_of[self.key_of[s]] = NIL
        arena_give(&self.arena, s)

    def finish(self, double end):
        """The trace is over at `end` seconds: what is still held pays until then."""
        cdef uint32_t s
        cdef int64_t now = to_ns(end)
        self._due(now)
        self.seen = now
        for s in range(1, self.arena.top):
            if self.arena.slots[s].used:
                self.hold_cost += <double>(now - self.since[s]) * 1e-9 * self.held_size[s] * self.price
                self.since[s] = now

    def counts(self):
        """The guard's books, with `worst` the largest lost + in flight - bound there ever was."""
        cdef Guard* g = &self.x.guard
        if self.broken:
            raise AssertionError("the premature-expiry promise was broken during the replay")
        return {"protected": g.protected_, "lost": g.lost, "in_flight": g.ghosts.n,
                "bound": g.alpha * <double>g.protected_ + 1, "worst": g.worst, "refused": g.refused,
                "early": self.x.early, "rung": g.rung}

    def freshness(self):
        """What is believed of staleness, as a dict; empty unless validities are learned."""
        return _believed(self.x.fresh)

    def _log_start(self, double sample, uint64_t salt, write):
        """As of a Store, but that nothing is written until `_log_rows` asks."""
        if self.x.kind != LEARNED:
            raise ValueError("log: only a learned expiry decides")
        _journal_gone(self.x.journal)
        self.x.journal = NULL
        self.x.journal = _journal_new(sample, salt, self.seen)

    def _log_rows(self, int most, bint closing=False):
        if self.x.journal is NULL:
            return []
        journal_sweep(self.x.journal, self.seen)
        if closing:
            journal_finish_all(self.x.journal, OUT_OPEN, self.seen)
        return _journal_rows(self.x.journal, most)

    def _log_stop(self):
        _journal_gone(self.x.journal)
        self.x.journal = NULL

    def _log_state(self):
        return {} if self.x.journal is NULL else _journal_state(self.x.journal)

    def _check(self):
        """Assert that structures agree."""
        if not wheel_sound(&self.x.wheel) or not wheel_sound(&self.x.guard.wheel):
            raise AssertionError("a wheel is damaged")
        if self.table.n != self.arena.n:
            raise AssertionError("table and arena count differently")
        if self.x.fresh is not NULL and not fresh_sound(self.x.fresh):
            raise AssertionError("the records of change are damaged")


def fixed_validity(const double[::1] time, const uint8_t[::1] op, const uint32_t[::1] version, const double[::1] ttl):
    """(reloads, stale reads) of one key's rows, in order of time, under each fixed validity in `ttl` (seconds).

    A value is reloaded by the first get at or after its validity; the first load of all is not counted.
    """
    cdef Py_ssize_t i, j, n = time.shape[0]
    cdef int64_t reloads, stale
    cdef bint held
    cdef uint32_t have = 0
    cdef double since = 0
    if op.shape[0] != n or version.shape[0] != n:
        raise ValueError("time, op, version: not of one length")
    out = []
    for j in range(ttl.shape[0]):
        held = False
        reloads = stale = 0
        for i in range(n):
            if op[i] == 2:
                held = False
                continue
            if op[i] == 0 and held:
                if time[i] - since < ttl[j]:
                    stale += version[i] != have
                    continue
                reloads += 1
            held = True
            have = version[i]
            since = time[i]
        out.append((reloads, stale))
    return out

def informed_validity(const uint32_t[::1] key, const double[::1] time, const uint8_t[::1] op, const uint32_t[::1] version,
                      const double[::1] rate, const double[::1] per_change, double theta):
    """(reloads, stale reads) of the optimal rule for known rates: see fresh.pxd.

    rate: changes per second of each key. per_change: its reads per change. theta: price of a stale read in reloads.
    """
    cdef Py_ssize_t i, n = key.shape[0], n_keys = rate.shape[0]
    cdef int64_t reloads = 0, stale = 0
    cdef double[::1] most = np.empty(n_keys)
    cdef double[::1] since = np.empty(n_keys)
    cdef uint32_t[::1] have = np.zeros(n_keys, np.uint32)
    cdef uint8_t[::1] held = np.zeros(n_keys, np.uint8)
    cdef uint32_t k
    if time.shape[0] != n or op.shape[0] != n or version.shape[0] != n or per_change.shape[0] != n_keys:
        raise ValueError("key, time, op, version, rate, per_change: not of one length")
    for i in range(n_keys):
        most[i] = fresh_share(theta, per_change[i])
    for i in range(n):
        k = key[i]
        if k >= n_keys:
            raise ValueError(f"key: row {i} has key {k}, not below {n_keys}")
        if op[i] == 2:
            held[k] = 0
            continue
        if op[i] == 0 and held[k]:
            if -expm1(-rate[k] * (time[i] - since[k])) < most[k]:
                stale += version[i] != have[k]
                continue
            reloads += 1
        held[k] = 1
        have[k] = version[i]
        since[k] = time[i]
    return reloads, stale

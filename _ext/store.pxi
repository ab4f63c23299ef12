# Store: keys and values over the numbered structures.
#
# The order inside every operation: user code first (hash, sizes, the timer, validation), then a
# look-up that starts again if `==` changed the table, then C only, and last the removed
# references and the callbacks, since a finalizer or a callback may call back in. What was
# removed waits in `_dead` until then.

cdef object _MISSING = object()
cdef object _NEITHER = object()

cdef enum:
    MOST_BANKS = 64

cdef enum:
    RESOLUTION = 4000000            # ns: what the coarse clock can tell apart

cdef enum:
    C_EXPIRED = 0
    C_EVICTED = 1
    C_REPLACED = 2
    C_DELETED = 3
    C_CLEARED = 4
    C_CROWDED = 5                   # evicted, not at the policy's word: too many keys share its hash

cdef enum:
    SOMEWHERE = -1                  # in place of a slot: whether and where a key is held has not been looked up

cdef enum:
    LEAST_FOLLOWED = 256            # keys: a learner that is behind does not thin them further
    MOST_ALIKE = 32                 # entries whose keys share one whole hash: no look-up compares more keys than that
    SPARES = 1024                   # last good values kept for the time that loads fail
    CHECKED_EACH_TIME = 512         # slots and memoirs: with more of them, a debug build checks at some operations only

cdef class Store:
    """A bounded mapping with an eviction policy and an expiry; `adaptcache.Cache` is its public face."""
    cdef Arena arena
    cdef Table table
    cdef Policy policy
    cdef Expiry x
    cdef Ring ring
    cdef list _pairs                # key and value of slot s at 2 s and 2 s + 1; a list, so that garbage is found through it
    cdef list _dead                 # key, value, cause, at of what left, until references may be dropped
    cdef object _gone_key           # the same of one entry that nobody wants to hear of: an eviction
    cdef object _gone_value         #   makes no list; _NEITHER: none
    cdef list _fresh                # key, end of window, of what left early, until `_early` has it
    cdef dict _early                # key -> end of window: hashes alone would mix up keys that share one
    cdef double* weights            # by slot; NULL while every entry weighs 1
    cdef double limit
    cdef double total
    cdef bint counts_entries        # every size is 1
    cdef bint float_sizes
    cdef bint ready
    cdef object _maxsize
    cdef object _policy_name
    cdef readonly object _sizer     # None: every entry counts 1
    cdef bint sized_by_method
    cdef bint sized_with_key        # the weigher is asked for the key and the value together
    cdef object _timer
    cdef readonly object _on_removal
    cdef object _deadline_of        # ENTRY: fn(key, value, now) -> deadline
    cdef tuple _causes
    cdef readonly Brain brain       # None unless the expiry is learned
    cdef dict _namespaces
    cdef int named                  # numbers given to namespaces so far
    cdef int64_t ceiling_ns
    cdef int64_t clock              # the latest time seen: the clock never runs backwards in here
    cdef bint timed                 # the clock is needed
    cdef bint plain                 # no expiry, and nobody hears of removals: the short ways
    cdef bint direct                # what is held and not due is served: nothing is learned first, no validity looked at again
    cdef double stated              # price of memory per ns that the user stated, or 0
    cdef double shadow_price        # learned from evictions; the higher of the two is in force
    cdef readonly tuple _bank_labels
    cdef double shadow_age          # ns: how long entries last, by the idle age of what is evicted or by the pace of requests
    cdef int64_t last_eviction      # or when the cache was made
    cdef double pace_requests       # requests lately, hits and values stored,
    cdef double pace_ns             #   and the time that they took, at the last eviction
    cdef uint64_t paced             # requests until then
    cdef uint64_t lost_seen         # events that the ring had lost, and had been told, when last looked at
    cdef uint64_t told_seen
    cdef uint32_t leisure           # looks since the learner was last behind
    cdef object _write_log          # takes finished decisions to disk; None = nobody does
    cdef Taper tape                 # hears of every operation; None = nobody does
    cdef uint64_t hits, misses, inserts, evictions, expirations
    cdef uint32_t crowded           # after a look-up that found nothing: the oldest of as many keys of that hash as there may be
    cdef uint64_t turns             # operations since the last check, in a debug build
    cdef object _digest             # value -> int or None; learned validity only
    cdef bint measured              # costs are measured load times
    cdef bint wanted                # the value just looked up should be reloaded by whoever knows how
    cdef int64_t spare_ns           # how long a value is kept for failing loads; 0 = not at all
    cdef list _spent                # key, value, until, of what expired, until `_spare` has it
    cdef dict _spare
    cdef uint64_t saved             # requests answered from it
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self._pairs = [None] * 16
        self._dead = []
        self._gone_key = self._gone_value = _NEITHER
        self._fresh = []
        self._early = {}
        self._spent = []
        self._spare = {}
        self._maxsize = 0
        self._policy_name = "fifo"
        self.counts_entries = True
        bind_policy(&self.policy, "fifo", 0, 0)
        if arena_init(&self.arena, 8) < 0 or table_init(&self.table, 8) < 0 \
                or expiry_init(&self.x, NEVER, 0, &self.arena, &self.table) < 0:
            raise MemoryError

    def __init__(self, maxsize, getsizeof=None, *, policy="adaptive", int kind=NEVER, double ttl=0.0, deadline_of=None,
                 Brain brain=None, double alpha=0.01, bint expected=False, double floor=0.0, ceiling=None,
                 bint threaded=False, double stated=0.0, banks=(), timer=None, on_removal=None, causes=None,
                 stale=None, digest=None, fail_safe=None, seed=0, max_keys=1 << 17):
        cdef double limit
        cdef int64_t now
        cdef Policy policed
        if self.ready:
            raise TypeError("a cache cannot be initialised twice")
        limit = INFINITY if maxsize is None else _number(maxsize, "maxsize", "zero or more, math.inf or None")
        if limit < 0 or isnan(limit):
            raise ValueError(f"maxsize: {maxsize!r} is not accepted; the accepted range is zero or more, math.inf or None")
        if getsizeof is not None and not callable(getsizeof):
            raise TypeError(f"getsizeof: expected a callable or None, got {type(getsizeof).__name__}")
        if timer is not None and not callable(timer):
            raise TypeError(f"timer: expected a callable or None, got {type(timer).__name__}")
        if on_removal is not None and not callable(on_removal):
            raise TypeError(f"on_removal: expected a callable or None, got {type(on_removal).__name__}")
        # What is learned repeats with its seed, and so must what leaves.
        bind_policy(&policed, policy, limit, seed if kind == LEARNED else None)
        free_policy(&self.policy)
        self.policy = policed
        self._policy_name = policy
        self.limit = limit
        self._maxsize = maxsize if maxsize is not None else INFINITY
        self._sizer = getsizeof
        self.sized_by_method = getsizeof is None and type(self).getsizeof is not Store.getsizeof
        self.sized_with_key = getattr(getsizeof, "with_key", False) is True
        self.counts_entries = getsizeof is None and not self.sized_by_method
        self._timer = timer
        self._on_removal = on_removal
        self._deadline_of = deadline_of
        self._causes = causes or (0, 1, 2, 3, 4)
        self._namespaces = {}
        self.timed = kind != NEVER or on_removal is not None
        self.clock = -INT64_MAX
        now = self.last_eviction = self._now() if self.timed else 0
        expiry_free(&self.x)
        if expiry_init(&self.x, kind, now, &self.arena, &self.table) < 0:
            raise MemoryError
        self.x.ttl = to_ns(ttl)
        self.ceiling_ns = INT64_MAX if ceiling is None else to_ns(ceiling)
        if kind == LEARNED:
            self.brain = brain
            self.x.engine = brain.g
            self.x.floor_ = to_ns(floor)
            self.x.guard.alpha = alpha
            self.x.guard.expected = expected
            self.stated = stated / 1e9
            brain.g.stated = self.stated
            self._bank_labels = tuple(label for label, _ in banks)
            if banks:
                self._open_banks([share for _, share in banks], now)
            if fail_safe is not None:
                self.spare_ns = to_ns(fail_safe)
            if stale is not None:
                self._digest = digest
                if expiry_learn_fresh(&self.x, stale, seed, max_keys) < 0:
                    raise MemoryError
            if threaded:
                if ring_init(&self.ring, 8192) < 0 or expiry_threaded(&self.x) < 0:
                    raise MemoryError
                self.x.ring = &self.ring
        if expiry_reserve(&self.x, self.arena.cap) < 0:
            raise MemoryError
        if self.policy.reserve is not NULL and self.policy.reserve(&self.policy, self.arena.cap) < 0:
            raise MemoryError
        if not self.counts_entries:
            self._weighed()
        self._choose_ways()
        self.ready = True

    cdef void _choose_ways(self) noexcept:
        self.timed = self.x.kind != NEVER or self._on_removal is not None or self.tape is not None
        self.plain = not self.timed
        self.direct = self.x.fresh is NULL and (self.x.kind != LEARNED or self.x.ring is not NULL)

    @cython.final
    cdef int _open_banks(self, list shares, int64_t now) except -1:
        """Banks are of the first namespaces: those labels get the first numbers."""
        cdef double alpha[MOST_BANKS]
        cdef int i
        for i in range(len(shares)):
            alpha[i] = shares[i]
            self._namespace(self._bank_labels[i])
        if expiry_banks(&self.x, alpha, <uint32_t>len(shares), now) < 0:
            raise MemoryError
        return 0

    def __dealloc__(self):
        free_policy(&self.policy)
        arena_free(&self.arena)
        table_free(&self.table)
        self.x.engine = NULL        # the brain's; it goes by itself
        _journal_gone(self.x.journal)
        expiry_free(&self.x)
        ring_free(&self.ring)
        free(self.weights)

    # -- the clock -----------------------------------------------------------------------

    @cython.final
    cdef int64_t _now(self) except? -1:
        cdef int64_t now
        cdef double t
        if self._timer is None:
            now = coarse_now()
        else:
            t = self._timer()
            # A clock that says nothing stands still; at zero, if it never said anything.
            now = to_ns(t) if isfinite(t) else (self.clock if self.clock > -INT64_MAX else 0)
        if now > self.clock:
            self.clock = now
        return self.clock

    @cython.final
    cdef inline int64_t _maybe_now(self) except? -1:
        return self._now() if self.timed else 0

    # -- references ----------------------------------------------------------------------

    @cython.final
    cdef inline object _key_at(self, uint32_t s):
        return <object>AC_ITEM(self._pairs, 2 * <Py_ssize_t>s)

    @cython.final
    cdef inline object _value_at(self, uint32_t s):
        return <object>AC_ITEM(self._pairs, 2 * <Py_ssize_t>s + 1)

    @cython.final
    cdef inline void _hold(self, uint32_t s, object key, object value):
        """These are the references of a slot from here on; who wants the former ones has taken them."""
        self._pairs[2 * <Py_ssize_t>s] = key
        self._pairs[2 * <Py_ssize_t>s + 1] = value

    # -- looking up ----------------------------------------------------------------------

    @cython.final
    cdef inline int64_t _find(self, object key, Py_hash_t h) except -1:
        """The slot of a key, or NIL."""
        cdef uint32_t at = 0, tag = table_tag(&self.table, h), s = table_first(&self.table, tag, &at)
        if s == NIL:
            self.crowded = NIL
            return s
        AC_PREFETCH(&self.arena.slots[s])
        if self.x.kind != NEVER:
            AC_PREFETCH(&self.x.lives[s])
            AC_PREFETCH(&self.x.wheel.timers[s])
        if ac_same(AC_ITEM(self._pairs, 2 * <Py_ssize_t>s), <PyObject*>key, DEPTH) == 1:
            return s
        return self._find_among(key, h)

    @cython.final
    cdef int64_t _find_among(self, object key, Py_hash_t h) except -1:
        """Several share a tag, or only `==` can tell. It may run user code: start again when the table moved."""
        cdef uint32_t at = 0, tag = table_tag(&self.table, h), s, alike, oldest = NIL
        cdef uint64_t version
        cdef int rounds = 0, equal
        while True:
            version = self.table.version
            alike = 0
            s = table_first(&self.table, tag, &at)
            while s != NIL:
                if self.arena.slots[s].hash == h:
                    other = self._key_at(s)
                    equal = ac_same(<PyObject*>other, <PyObject*>key, DEPTH)
                    if equal < 0:
                        equal = PyObject_RichCompareBool(other, key, Py_EQ)
                        if self.table.version != version:
                            break
                    if equal:
                        return s
                    alike += 1
                    if alike == 1:
                        oldest = s
                s = table_next(&self.table, tag, &at)
            if s == NIL:
                self.crowded = oldest if alike >= MOST_ALIKE else NIL
                return NIL
            rounds += 1
            if rounds > 1000:
                raise RuntimeError(f"the __eq__ of a key of type {type(key).__name__} changes the cache each time it runs")

    @cython.final
    cdef inline bint _may_go(self, uint32_t s, int64_t now) noexcept:
        """May a request find that this entry, which is due, has gone?

        Where a thread learns, verdicts are the thread's: what it has not let go yet is there to be
        served, while it is valid, and the request has no model to run.
        """
        return self.x.ring is NULL or expiry_valid(&self.x, s) <= now

    @cython.final
    cdef inline int _missed(self, object key, Py_hash_t h, int64_t now, const Touch* touch) except -1:
        self._whole()
        self.misses += 1
        AC_MISS(h)
        if self.tape is not None:
            tape_note(&self.tape.t, h, now, NOTE_MISS)
            self.tape._tell()
        if self.x.kind == LEARNED:
            if expiry_miss(&self.x, h, now, touch, self._left_early(key, now)):
                AC_PREMATURE(h)
            if self.x.journal is not NULL:
                self._log_if_full(h)
        return 0

    @cython.final
    cdef void _forget_early(self):
        """Let go, now and then, of keys whose window has passed. Runs no user code: nothing is hashed."""
        if PyList_GET_SIZE(self._fresh) // 2 + PyDict_Size(self._early) <= 64 + 2 * <Py_ssize_t>expiry_in_flight(&self.x):
            return
        early, self._early = self._early, {}
        fresh, self._fresh = self._fresh, []
        for i in range(0, len(fresh), 2):
            if fresh[i + 1] >= self.clock:
                self._fresh.append(fresh[i])
                self._fresh.append(fresh[i + 1])
        for key, end in early.items():
            if end >= self.clock:
                self._fresh.append(key)
                self._fresh.append(end)

    @cython.final
    cdef bint _left_early(self, object key, int64_t now) except -1:
        """Did this key leave early, is its window open, and was that not asked yet? Runs user code."""
        cdef int64_t until = -INT64_MAX
        cdef dict early
        # A reference of our own: while a hash or `==` runs, somebody may put another dict in this one's place.
        while PyList_GET_SIZE(self._fresh):
            end, left, early = self._fresh.pop(), self._fresh.pop(), self._early
            early[left] = end
            if early is not self._early:
                self._fresh.append(left)
                self._fresh.append(end)
        early = self._early
        if PyDict_Size(early):
            until = early.pop(key, -INT64_MAX)
        return until > -INT64_MAX and until >= now

    @cython.final
    cdef object _lookup(self, object key, const Touch* touch, bint loads=False):
        """The value of a request, or _MISSING. The caller flushes.

        loads: the caller can reload the value, and looks at `wanted` before any other code runs.
        """
        cdef Py_hash_t h = ac_hash(<PyObject*>key)
        return self._lookup_at(key, h, SOMEWHERE, self._maybe_now(), touch, loads)

    @cython.final
    cdef object _lookup_at(self, object key, Py_hash_t h, int64_t s, int64_t now, const Touch* touch, bint loads):
        """`_lookup` of a key with this hash, at this time. s: its slot, NIL, or SOMEWHERE: nobody has looked."""
        cdef int64_t at
        cdef int verdict
        self.wanted = False
        if s == SOMEWHERE:
            if self.x.kind == LEARNED and self.x.ring is NULL:
                self._due(now)
            s = self._find(key, h)
        if s == NIL:
            self._missed(key, h, now, touch)
            return _MISSING
        if self.x.fresh is not NULL:
            expiry_review(&self.x, <uint32_t>s, now)
        if self.x.kind != NEVER and now >= expiry_due_at(&self.x, <uint32_t>s) and self._may_go(<uint32_t>s, now):
            if expiry_gone(&self.x, <uint32_t>s, now, &at):
                self._take(<uint32_t>s, C_EXPIRED, at)
                self._missed(key, h, now, touch)
                return _MISSING
        if life_fresh(&self.x, <uint32_t>s) != NIL:
            verdict = fresh_read(self.x.fresh, self.x.freshers[s], now, self._load_seconds(<uint32_t>s) if loads else 0)
            self.wanted = loads and verdict != SERVE
            if verdict == AUDIT and not loads:
                # Whoever gets nothing asks the origin: that is the audit.
                fresh_sent(self.x.fresh, self.x.freshers[s])
                self._take(<uint32_t>s, C_EXPIRED, now)
                self._missed(key, h, now, touch)
                return _MISSING
            if verdict == REFRESH and not loads:
                fresh_refused(self.x.fresh, self.x.freshers[s])
        return self._serve(<uint32_t>s, h, now, touch)

    @cython.final
    cdef inline object _serve(self, uint32_t s, Py_hash_t h, int64_t now, const Touch* touch):
        """The value of an entry that a request found, and that is not due."""
        value = self._value_at(s)
        self.policy.on_hit(&self.policy, &self.arena, s)
        self.hits += 1
        AC_HIT(h)
        if self.x.kind != NEVER:
            expiry_hit(&self.x, s, now, touch)
        if self.tape is not None:
            self._note_hit(s, h, now)
        if self.x.journal is not NULL:
            self._log_if_full(h)
        self._whole()
        return value

    @cython.final
    cdef inline object _hit(self, uint32_t s):
        """What is held is asked for, of a plain cache."""
        self.policy.on_hit(&self.policy, &self.arena, s)
        self.hits += 1
        AC_HIT(self.arena.slots[s].hash)
        self._whole()
        return self._value_at(s)

    @cython.final
    cdef inline bint _serves(self, uint32_t s, int64_t now) noexcept:
        """Has a request that found this entry nothing to decide?"""
        return self.direct and (self.x.kind == NEVER or now < expiry_due_at(&self.x, s))

    @cython.final
    cdef double _load_seconds(self, uint32_t s) noexcept:
        """What a load takes, as far as costs are seconds: the running mean of measured loads."""
        return self.x.lives[s].cost if self.measured else 0

    @cython.final
    cdef int64_t _held(self, object key, Py_hash_t h, int64_t now) except -1:
        """The slot of a key that is held, without making a request of it. The caller flushes."""
        cdef int64_t s, at
        if self.x.kind == LEARNED and self.x.ring is NULL:
            self._due(now)
        s = self._find(key, h)
        if s != NIL and self.x.kind != NEVER and now >= expiry_due_at(&self.x, <uint32_t>s) and self._may_go(<uint32_t>s, now):
            if expiry_gone(&self.x, <uint32_t>s, now, &at):
                self._take(<uint32_t>s, C_EXPIRED, at)
                self.crowded = NIL
                return NIL
        return s

    # -- removal -------------------------------------------------------------------------

    cdef void _take(self, uint32_t s, int cause, int64_t at):
        """Unlink a slot from every structure; its references wait in `_dead`. Runs no user code."""
        cdef int64_t h = self.arena.slots[s].hash
        if self.tape is not None and cause == C_DELETED and not self.tape.muted:
            tape_note(&self.tape.t, h, self._note_time(at), NOTE_DELETE)
        if cause == C_EXPIRED:
            self.expirations += 1
            AC_EXPIRE(h, at)
            if self.x.kind != NEVER:
                expiry_end(&self.x, s, at, EVICTED)
                if self.spare_ns > 0 and at < life_ceiling(&self.x, s):
                    self._spent.append(self._key_at(s))
                    self._spent.append(self._value_at(s))
                    self._spent.append(min(later(at, self.spare_ns), life_ceiling(&self.x, s)))
                if self.x.until > -INT64_MAX:
                    self._fresh.append(self._key_at(s))
                    self._fresh.append(self.x.until)
                    self.x.until = -INT64_MAX
        elif cause == C_EVICTED or cause == C_CROWDED:
            self.evictions += 1
            AC_EVICT(h)
            expiry_end(&self.x, s, at, EVICTED)
        elif self.x.kind != NEVER:
            if cause == C_REPLACED and self.x.journal is not NULL:
                expiry_note_written(&self.x, h, at)
            expiry_end(&self.x, s, at, REMOVED)
        self._bury(s, C_EVICTED if cause == C_CROWDED else cause, at)
        self._hold(s, None, None)
        self._unlink(s, cause == C_EVICTED)

    @cython.final
    cdef inline void _unlink(self, uint32_t s, bint evicted) noexcept:
        """Off every structure but the expiry's; its references are somebody else's."""
        self.policy.on_remove(&self.policy, &self.arena, s, evicted)
        table_remove(&self.table, self.arena.slots[s].hash, s)
        self.total -= policy_weight(&self.policy, s)
        arena_give(&self.arena, s)
        if self.arena.n == 0:
            self.total = 0

    @cython.final
    cdef inline uint32_t _link(self, object key, Py_hash_t h, object value, double size, double cost) noexcept:
        """A newcomer takes a slot; there is room."""
        cdef uint32_t s = arena_take(&self.arena)
        self.arena.slots[s].hash = h
        table_insert(&self.table, h, s)
        if self.weights is not NULL:
            self.weights[s] = size
        self.policy.cost = cost
        self.policy.on_insert(&self.policy, &self.arena, s)
        self.policy.cost = -1
        self.total += size
        self._hold(s, key, value)
        self.inserts += 1
        AC_INSERT(h)
        return s

    @cython.final
    cdef inline void _weigh(self, uint32_t s, double size) noexcept:
        """An entry that is held weighs so much from here on."""
        cdef double before = policy_weight(&self.policy, s)
        self.total += size - before
        if self.weights is not NULL and size != before:
            self.weights[s] = size
            if self.policy.weigh is not NULL:
                self.policy.weigh(&self.policy, &self.arena, s, before)

    @cython.final
    cdef inline void _bury(self, uint32_t s, int cause, int64_t at):
        """Hold the references of a slot until the operation ends."""
        if self._on_removal is None and cause != C_EXPIRED and self._gone_value is _NEITHER:
            # Nothing is told: two references, and no list. (`expire` lists what it removed.)
            self._gone_key = self._key_at(s)
            self._gone_value = self._value_at(s)
            return
        self._dead.append(self._key_at(s))
        self._dead.append(self._value_at(s))
        self._dead.append(cause)
        self._dead.append(at)

    @cython.final
    cdef list _removed(self):
        """What was removed since it was last asked for; from here on it is the caller's."""
        # The new list first: making it may collect garbage, whose finalizers may call in and flush.
        cdef list fresh = [], dead = self._dead
        self._dead = fresh
        return dead

    @cython.final
    cdef int _tell(self, list dead) except -1:
        cdef Py_ssize_t i
        if self._on_removal is None:
            return 0
        for i in range(0, len(dead), 4):
            try:
                self._on_removal(dead[i], dead[i + 1], self._causes[dead[i + 2]], to_seconds(dead[i + 3]))
            except Exception:
                _log.exception("on_removal raised for key %.200r; the callback stays", dead[i])
            except BaseException:
                self._dead[0:0] = dead[i + 4:]      # an interrupt: the others are told with the next operation
                raise
        return 0

    cdef int _flush(self) except -1:
        """Drop what was removed, and tell. Last in every operation."""
        self._whole()
        if self.tape is not None:
            self.tape._tell()
        if self._gone_value is not _NEITHER:
            # Into locals, which go when this returns: a finalizer may call in, and flush.
            key, value = self._gone_key, self._gone_value
            self._gone_key = self._gone_value = _NEITHER
        if PyList_GET_SIZE(self._dead) == 0:
            return 0
        self._forget_early()
        if PyList_GET_SIZE(self._spent):
            self._keep_spent()
        return self._tell(self._removed())

    # -- last good values, for when loads fail -------------------------------------------

    @cython.final
    cdef int _keep_spent(self) except -1:
        """Keep what expired, for a while and so many of them. Runs user code, and drops references."""
        cdef Py_ssize_t i, held
        cdef dict spare = self._spare       # of our own: while a hash or `==` runs, `clear` may put another in its place
        spent, self._spent = self._spent, []
        for i in range(0, len(spent), 3):
            spare.pop(spent[i], None)       # the oldest stand first
            spare[spent[i]] = (spent[i + 1], spent[i + 2])
        while spare:
            for key in spare:
                break
            kept = spare.get(key)
            if PyDict_Size(spare) <= SPARES and (kept is None or kept[1] > self.clock):
                break
            held = PyDict_Size(spare)
            spare.pop(key, None)
            if PyDict_Size(spare) >= held:
                if spare is self._spare:
                    self._spare = {}        # a key that its own `==` or hash no longer finds: forget, and do not turn for ever
                break
        return 0

    @cython.final
    cdef int _drop_spare(self, object key) except -1:
        """The user stored or deleted something: an older value must not come back."""
        if self.spare_ns > 0:
            if PyList_GET_SIZE(self._spent):
                self._keep_spent()
            spare = self._spare
            spare.pop(key, None)
        return 0

    def _last_good(self, key):
        """The value of a key that expired lately, for a load that failed; _core.MISSING if there is none."""
        cdef int64_t now = self._maybe_now()
        self._due(now)
        self._flush()
        spare = self._spare
        kept = spare.get(key)
        if kept is None:
            return _MISSING
        if kept[1] <= now:
            spare.pop(key, None)
            return _MISSING
        self.saved += 1
        return kept[0]

    @cython.final
    cdef void _due(self, int64_t now):
        """Learn and let go whatever is due. Runs no user code."""
        cdef int budget = 2147483647
        cdef int64_t at
        cdef uint32_t s
        cdef uint64_t refused
        if self.x.kind == NEVER or now < expiry_next(&self.x):
            return
        refused = expiry_refused(&self.x)
        while True:
            s = expiry_due(&self.x, now, &at, &budget)
            if s == NIL:
                break
            self._take(s, C_EXPIRED, at)
        refused = expiry_refused(&self.x) - refused
        if refused:
            AC_GUARD_TRIPPED(refused)

    @cython.final
    cdef int _evict(self, uint32_t s, int64_t now) except -1:
        """The policy's victim leaves."""
        if self.x.kind == LEARNED:
            self._pressed(&self.x.lives[s], now)
        self._take(s, C_EVICTED, now)
        return 0

    @cython.final
    cdef void _pressed(self, Life* l, int64_t now):
        """An entry has to go: at which price would what is worth least of all that is held just break even?

        A policy that ranks by what entries promise says so. It may name another victim, a newcomer that it does not let in, and
        then the idle age says nothing of the margin. Where the policy does not tell, the idle age stands in: so long the
        entry was held in vain. Means of logarithms: one entry that went at once must not make memory dear for all.
        """
        cdef double pace = self._frequency(now), age = <double>(now - l.rec.last), price
        self.last_eviction = now
        if not (l.cost > 0 and l.size > 0):
            return
        if self.policy.promise >= 0 and pace > 0:
            price = l.cost * self.policy.promise * pace
            age = self.arena.n / pace
        else:
            age = age if age > RESOLUTION else RESOLUTION       # younger than the clock can tell
            price = l.cost / (l.size * age)
        if not price < INFINITY:
            return                              # by a weight next to nothing anything promises without end
        if price == 0:
            self.shadow_price *= 0.98           # nothing is lost: a step down, as where there was room
        elif self.shadow_price > 0:
            self.shadow_price = exp(log(self.shadow_price) + 0.02 * (log(price) - log(self.shadow_price)))
            self.shadow_age = exp(log(self.shadow_age) + 0.02 * (log(age) - log(self.shadow_age)))
        else:
            self.shadow_price = price
            self.shadow_age = age
        self.brain.g.price = max(self.stated, self.shadow_price)

    @cython.final
    cdef double _frequency(self, int64_t now) noexcept:
        """Requests per ns, of about as many requests as entries are held; 0 = unknown. Asked at each eviction."""
        cdef uint64_t requests = self.hits + self.inserts
        self.pace_requests += <double>(requests - self.paced)
        self.pace_ns += <double>(now - self.last_eviction)
        self.paced = requests
        if self.pace_requests > 2.0 * self.arena.n and self.pace_ns > 16 * RESOLUTION:
            self.pace_requests *= 0.5
            self.pace_ns *= 0.5
        return self.pace_requests / (self.pace_ns if self.pace_ns > RESOLUTION else RESOLUTION)

    @cython.final
    cdef void _relax(self, int64_t now):
        """A value came in and nothing had to go: a step down, as each eviction is one up. Where nothing went for as
        long as entries lately lasted, several times over, memory costs what was stated again."""
        self.shadow_price *= 0.98
        self.brain.g.price = max(self.stated, self.shadow_price)
        if self.shadow_price > 0 and self.total < 0.9 * self.limit and now - self.last_eviction > 8 * self.shadow_age:
            self.shadow_price = 0
            self.brain.g.price = self.stated

    # -- storing -------------------------------------------------------------------------

    cdef int _room(self) except -1:
        """One more slot exists in every array, or MemoryError and nothing changed."""
        if self.arena.free_head == NIL and self.arena.top >= self.arena.cap:
            self._grow()
        if table_reserve(&self.table) < 0:
            raise MemoryError
        return 0

    @cython.final
    cdef inline bint _roomy(self) noexcept:
        """Does one more slot exist in every array?"""
        return (self.arena.free_head != NIL or self.arena.top < self.arena.cap) and table_roomy(&self.table)

    @cython.final
    cdef int _grow(self) except -1:
        cdef uint32_t had = self.arena.cap
        # By a tenth where there are many: what is not used yet must not cost more than the entries.
        cdef uint32_t cap = had * 2 if had < 1024 else had + had // 10
        cdef double* more
        cdef uint32_t i
        # (One more than may stay, for who comes in before another leaves, and NIL.)
        if self.weights is NULL and self.limit + 2 < cap and had < <uint32_t>self.limit + 2:
            cap = <uint32_t>self.limit + 2
        if self.weights is not NULL:
            more = <double*>realloc(self.weights, <size_t>cap * sizeof(double))
            if more is NULL:
                raise MemoryError
            self.weights = more
            self.policy.weights = more
            for i in range(had, cap):
                more[i] = 1
        if self.policy.reserve is not NULL and self.policy.reserve(&self.policy, cap) < 0:
            raise MemoryError
        if expiry_reserve(&self.x, cap) < 0:
            raise MemoryError
        if PyList_GET_SIZE(self._pairs) < 2 * <Py_ssize_t>cap and ac_lengthen(self._pairs, 2 * <Py_ssize_t>cap) < 0:
            raise MemoryError
        if arena_reserve(&self.arena, cap) < 0:
            raise MemoryError
        return 0

    @cython.final
    cdef int _weighed(self) except -1:
        """From here on entries weigh what they are said to; those that are held weigh 1."""
        cdef uint32_t s
        cdef double* weights = <double*>malloc(<size_t>self.arena.cap * sizeof(double))
        if weights is NULL:
            raise MemoryError
        for s in range(self.arena.cap):
            weights[s] = 1
        self.weights = weights
        self.policy.weights = weights
        return 0

    @cython.final
    cdef double _size(self, object key, object value) except? -1:
        if self.counts_entries:
            return 1
        if self.sized_with_key:
            size = self._sizer(key, value)
        else:
            size = self.getsizeof(value) if self.sized_by_method else self._sizer(value)
        return self._checked_size(size, "getsizeof")

    @cython.final
    cdef double _checked_size(self, object size, str name) except? -1:
        cdef double d = _number(size, name, "a finite number, zero or more")
        if not (d >= 0 and isfinite(d)):
            raise ValueError(f"{name}: {size!r} is not accepted; the accepted range is a finite number, zero or more")
        if not isinstance(size, int):
            self.float_sizes = True
        return d

    cdef int _put(self, object key, Py_hash_t h, object value, double size, int64_t now, int64_t ceiling,
                  Touch* touch, bint declared, bint renew, object digest) except -1:
        """Store, at the user's word; was it stored? The caller flushes, also when this raises.

        declared: the user said how long it is valid. renew: a reload behind the requests' back, void if
        something was stored or deleted under the key since it began. digest: of the value, or None.
        """
        cdef int64_t s
        cdef uint32_t slot, out, r, crowded
        cdef uint64_t evictions = self.evictions
        cdef bint early, renewing = False, known = digest is not None
        cdef uint64_t print_ = digest if known else 0
        if size > self.limit:
            raise ValueError("value too large")
        if size != 1 and self.weights is NULL:
            self._weighed()
        if ceiling < INT64_MAX and expiry_ceilings(&self.x) < 0:
            raise MemoryError
        if self.x.kind != NEVER and self.x.ring is NULL:    # else the thread lets go: a verdict takes microseconds
            self._due(now)
        early = self.x.kind == LEARNED and self._left_early(key, now)
        while True:
            # Room first: making it may collect garbage, whose finalizers may store this very key. But then `==` may
            # have stored something and used it up.
            self._room()
            s = self._held(key, h, now)
            if s != NIL or self._roomy():
                break
        crowded = self.crowded if s == NIL else NIL
        if size > self.limit:               # `==` may have called `resize`
            raise ValueError("value too large")
        if self.x.fresh is not NULL:
            if not declared and expiry_parts(&self.x, h, <uint32_t>s) and expiry_ceilings(&self.x) < 0:
                raise MemoryError
            r = fresh_find(self.x.fresh, h)
            if renew and (r == NIL or not self.x.fresh.keys[r].refreshing):
                return 0
            if not renew and r != NIL and self.x.fresh.keys[r].refreshing:
                fresh_refused(self.x.fresh, r)
            renewing = renew and s != NIL
        if early:
            expiry_forgive(&self.x, h)
        if ceiling <= now and self.x.kind != NEVER:
            # Already over: what was held under the key is not valid any more either.
            if s != NIL:
                self._take(<uint32_t>s, C_REPLACED, now)
            else:
                if self.x.journal is not NULL:
                    expiry_note_written(&self.x, h, now)
                expiry_absent(&self.x, h, now, False)
            return 0
        if s != NIL:
            slot = <uint32_t>s
            while self.total - policy_weight(&self.policy, slot) + size > self.limit:
                out = self.policy.victim(&self.policy, &self.arena)
                if out == slot:
                    # The policy would rather lose this one: it makes room as a new entry does.
                    self._take(slot, C_REPLACED, now)
                    s = NIL
                    break
                self._evict(out, now)
        if s != NIL:
            self._weigh(slot, size)
            self._bury(slot, C_REPLACED, now)
            self._pairs[2 * <Py_ssize_t>slot + 1] = value
            if self.x.kind == LEARNED:
                self._known(touch, h, &self.x.lives[slot])
            self.policy.cost = touch.cost
            self.policy.on_hit(&self.policy, &self.arena, slot)
            self.policy.cost = -1
            self.inserts += 1
            if self.x.kind != NEVER:
                if self.x.fresh is not NULL:
                    expiry_fresh(&self.x, slot, now, touch.ns, declared, known, print_)
                if renewing:
                    self.x.lives[slot].size = <float>touch.size
                    self.x.lives[slot].cost = <float>touch.cost
                    expiry_renew(&self.x, slot, now, ceiling)
                else:
                    expiry_begin(&self.x, slot, now, ceiling, touch, True)
            return 1
        if crowded != NIL:
            # Keys that share a whole hash are compared one by one: a cache may forget, and so need not slow down.
            self._take(crowded, C_CROWDED, now)
        if self.x.kind == LEARNED:
            self._known(touch, h, NULL)
        if self.policy.on_coming is not NULL:
            self.policy.on_coming(&self.policy, &self.arena, h, size)
        while self.arena.n > 0 and self.total + size > self.limit:
            self._evict(self.policy.victim(&self.policy, &self.arena), now)
        slot = self._link(key, h, value, size, touch.cost)
        if self.x.kind != NEVER:
            if self.x.fresh is not NULL:
                expiry_fresh(&self.x, slot, now, touch.ns, declared, known, print_)
            expiry_begin(&self.x, slot, now, ceiling, touch, False)
            if self.shadow_price > 0 and self.evictions == evictions:
                self._relax(now)
        return 1

    @cython.final
    cdef int _put_plain(self, object key, Py_hash_t h, object value) except -1:
        """`cache[key] = value` of a plain cache."""
        cdef double size = 1 if self.counts_entries else self._size(key, value)
        cdef PyObject* gone_key = NULL
        cdef PyObject* gone_value = NULL
        cdef Py_ssize_t at
        cdef int64_t s
        cdef uint32_t out
        if size > self.limit:
            raise ValueError("value too large")
        while True:
            self._room()                    # in this order, as in `_put`
            s = self._find(key, h)
            if s != NIL or self._roomy():
                break
        if not self.plain or (s == NIL and self.crowded != NIL) \
                or (s != NIL and self.total - policy_weight(&self.policy, <uint32_t>s) + size > self.limit):
            # `==` gave an entry a ttl, too many keys share the hash, or the entry grows and pushes others out.
            return self._set(key, value, None, None, size if self.float_sizes else int(size), None, None, False)
        if size > self.limit:               # `==` may have called `resize`
            raise ValueError("value too large")
        if s != NIL:
            self._weigh(<uint32_t>s, size)
            at = 2 * s + 1
            gone_value = AC_ITEM(self._pairs, at)
            Py_INCREF(value)
            ac_put(self._pairs, at, <PyObject*>value)
            self.policy.on_hit(&self.policy, &self.arena, <uint32_t>s)
            self.inserts += 1
            self._whole()
            Py_DECREF(<object>gone_value)   # last: a finalizer may call in
            return 0
        if self.policy.on_coming is not NULL:
            self.policy.on_coming(&self.policy, &self.arena, h, size)
        while self.arena.n > 0 and self.total + size > self.limit:
            out = self.policy.victim(&self.policy, &self.arena)
            if gone_key is not NULL:
                self._take(out, C_EVICTED, 0)
                continue
            self.evictions += 1
            AC_EVICT(self.arena.slots[out].hash)
            at = 2 * <Py_ssize_t>out
            gone_key, gone_value = AC_ITEM(self._pairs, at), AC_ITEM(self._pairs, at + 1)
            Py_INCREF(None)
            Py_INCREF(None)
            ac_put(self._pairs, at, <PyObject*>None)
            ac_put(self._pairs, at + 1, <PyObject*>None)
            self._unlink(out, True)
        self._link(key, h, value, size, -1)
        if gone_key is NULL:
            self._whole()
        else:
            self._flush()                   # of what else was evicted; with no callback this only drops
            Py_DECREF(<object>gone_key)
            Py_DECREF(<object>gone_value)
        return 0

    @cython.final
    cdef void _known(self, Touch* touch, Py_hash_t h, Life* life):
        """Fill in a cost that the caller did not give, from what is known of the key."""
        cdef uint8_t count
        cdef double cost
        if touch.cost >= 0:
            return
        touch.cost = self.brain.g.miss_cost
        cost = engine_cost(self.brain.g, h, &count)
        if cost > 0:
            touch.cost = cost
        elif life is not NULL:
            touch.cost = life.cost

    @cython.final
    cdef int _arm(self) except -1:
        """The first entry with a ttl of its own in a cache without expiry."""
        cdef int64_t now
        if self.x.kind != NEVER:
            return 0
        now = self._now()
        if self.x.kind != NEVER:            # the timer is the user's, and another thread was faster
            return 0
        self.x.wheel.base = now
        self.x.kind = ENTRY
        if expiry_reserve(&self.x, self.arena.cap) < 0:
            self.x.kind = NEVER
            raise MemoryError
        memset(self.x.lives, 0, self.arena.cap * sizeof(Life))
        self._choose_ways()
        return 0

    @cython.final
    cdef int64_t _ceiling(self, object key, object value, int64_t lasts, int64_t now) except? -1:
        cdef int64_t ceiling = later(now, min(lasts, self.ceiling_ns))
        cdef double d
        if self.x.kind == ENTRY and self._deadline_of is not None:
            d = _number(self._deadline_of(key, value, to_seconds(now)), "expiry", "a deadline in seconds of the timer")
            if isnan(d):
                raise ValueError("expiry: the deadline is NaN; the accepted range is any number of seconds of the timer")
            if to_ns(d) < ceiling:
                ceiling = to_ns(d)
        return ceiling

    @cython.final
    cdef int _namespace(self, object label) except -1:
        """The number of a namespace, known or new; 0 where there is no room for one more."""
        cdef int fresh
        number = self._namespaces.get(label)
        if number is None:
            if self.named + 1 >= NAMESPACES:
                return 0
            # A number of its own first: a label's hash and `==` may let other threads name theirs.
            self.named += 1
            fresh = self.named
            number = self._namespaces.setdefault(label, fresh)
            if number == fresh and self.brain is not None:
                self.brain.g.namespaces[fresh].name = _label_name(label)
        return number

    @cython.final
    cdef int _touch(self, Touch* t, double size, object cost, object namespace, object features) except -1:
        """What the caller says of an access, as numbers. Validates all of it first."""
        cdef double d
        cdef int at
        memset(t, 0, sizeof(Touch))
        t.size = size
        t.cost = -1
        if cost is not None:
            d = _number(cost, "cost", "a finite number, zero or more")
            if not (d >= 0 and isfinite(d)):
                raise ValueError(f"cost: {cost!r} is not accepted; the accepted range is a finite number, zero or more")
            t.cost = d
        if namespace is not None:
            try:
                PyObject_Hash(namespace)
            except TypeError:
                raise TypeError(f"namespace: expected a hashable label, got {type(namespace).__name__}") from None
        told = self._features(features) if features is not None else None
        if namespace is not None and (self.x.kind == LEARNED or self.tape is not None):
            t.ns = self._namespace(namespace)
        if self.x.kind != LEARNED:
            return 0
        if told is not None:
            for name, d, code in told:
                at = self.brain.place(name)
                if at < 0:
                    continue    # the first eight names are used; `explain` says so
                t.number[at] = <float>d
                t.code[at] = code
                if at + 1 > t.n_features:
                    t.n_features = <uint16_t>(at + 1)
        return 0

    @cython.final
    cdef list _features(self, object features):
        """(name, number, code) of each; the code of a number is 0. Validates all of it."""
        cdef double d
        cdef list told = []
        try:
            items = features.items()
        except AttributeError:
            raise TypeError(f"features: expected a mapping from str to float, int or str, got {type(features).__name__}") from None
        for name, value in items:
            if not isinstance(name, str):
                raise TypeError(f"features: names must be str, got {type(name).__name__}")
            if isinstance(value, str):
                told.append((name, 0.0, code_of(_fnv(value))))
                continue
            d = _number(value, f"features[{name!r}]", "a str or a finite number")
            if not isfinite(d):
                raise ValueError(f"features[{name!r}]: {value!r} is not accepted; the accepted range is a str or a finite number")
            told.append((name, max(-3e38, min(3e38, d)), 0))        # what a C float holds
        return told

    @cython.final
    cdef int _set(self, object key, object value, object ttl, object cost, object size, object namespace,
                  object features, bint measured, bint renew=False) except -1:
        cdef Touch touch
        cdef double weight, lasts = INFINITY
        cdef int64_t now, ceiling
        cdef uint8_t count
        cdef double old, told
        cdef int stored
        cdef Py_hash_t h = PyObject_Hash(key)
        weight = self._size(key, value) if size is None else self._checked_size(size, "size")
        if ttl is not None:
            lasts = _number(ttl, "ttl", "seconds, zero or more, math.inf or None")
            if not lasts >= 0:
                raise ValueError(f"ttl: {ttl!r} is not accepted; the accepted range is seconds, zero or more, math.inf or None")
        self._touch(&touch, weight, cost, namespace, features)
        if ttl is not None:
            self._arm()
        digest = self._digest(value) if self.x.fresh is not NULL and ttl is None else None
        now = self._maybe_now()
        ceiling = self._ceiling(key, value, to_ns(lasts), now)
        told = touch.cost
        if measured and self.x.kind == LEARNED and touch.cost >= 0:
            old = engine_cost(self.brain.g, h, &count)
            if count > 1:
                touch.cost = old + 0.3 * (touch.cost - old)
        try:
            if measured and touch.cost >= 0:
                self.measured = True
            stored = self._put(key, h, value, weight, now, ceiling, &touch, ttl is not None, renew, digest)
            if self.tape is not None:
                if stored:
                    self._note_set(h, now, weight, told, ceiling, touch.ns, NOTE_LOADED if measured else NOTE_SET)
                elif not renew:
                    tape_note(&self.tape.t, h, now, NOTE_DELETE)    # what is over when it comes ends what was there
            self._drop_spare(key)
        finally:
            self._flush()
        if self.x.journal is not NULL:
            self._log_if_full(h)
        return 0

    # -- the mapping ---------------------------------------------------------------------

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def get(self, key, default=None):
        """The value of `key`, or `default` if it is not held. A request: it counts and is learned from."""
        cdef int64_t s, now
        cdef Py_hash_t h
        if self.plain:
            h = ac_hash(<PyObject*>key)
            s = self._find(key, h)
            if s == NIL:
                self._whole()
                self.misses += 1
                AC_MISS(h)
                return default
            return self._hit(<uint32_t>s)
        h, s = ac_hash(<PyObject*>key), SOMEWHERE
        now = self._maybe_now()
        if self.direct:
            s = self._find(key, h)
            if s != NIL and self._serves(<uint32_t>s, now):
                return self._serve(<uint32_t>s, h, now, NULL)
        try:
            value = self._lookup_at(key, h, s, now, NULL, False)
        finally:
            if PyList_GET_SIZE(self._dead):     # nothing else can be waiting after a look-up
                self._flush()
        return default if value is _MISSING else value

    def _get_with(self, key, default, size, cost, namespace, features):
        """`get` that also tells the learner what the caller knows of this access."""
        cdef Touch touch
        self._touch(&touch, 1 if size is None else self._checked_size(size, "size"), cost, namespace, features)
        if self.x.kind != LEARNED:
            return self.get(key, default)
        if size is None:
            value = self._peek_size(key)
            if value is not None:
                touch.size = value
        try:
            value = self._lookup(key, &touch)
        finally:
            self._flush()
        return default if value is _MISSING else value

    def _ask_loading(self, key, default, size, cost, namespace, features):
        """(value or `default`, should it be reloaded?) for a caller who can load, in the words of `_get_with`."""
        cdef Touch touch
        cdef bint told = namespace is not None or features is not None, wanted
        if told:
            self._touch(&touch, 1 if size is None else self._checked_size(size, "size"), cost, namespace, features)
            if size is None:
                value = self._peek_size(key)
                if value is not None:
                    touch.size = value
        try:
            value = self._lookup(key, &touch if told else NULL, True)
            wanted = self.wanted
        finally:
            self._flush()
        return default if value is _MISSING else value, wanted

    @cython.final
    cdef object _peek_size(self, object key):
        cdef int64_t s = self._find(key, PyObject_Hash(key))
        return None if s == NIL else policy_weight(&self.policy, <uint32_t>s)

    def __getitem__(self, key):
        cdef int64_t s, now
        cdef Py_hash_t h
        if self.plain:
            h = ac_hash(<PyObject*>key)
            s = self._find(key, h)
            if s != NIL:
                return self._hit(<uint32_t>s)
            self._whole()
            self.misses += 1
            AC_MISS(h)
            return type(self).__missing__(self, key)
        h, s = ac_hash(<PyObject*>key), SOMEWHERE
        now = self._maybe_now()
        if self.direct:
            s = self._find(key, h)
            if s != NIL and self._serves(<uint32_t>s, now):
                return self._serve(<uint32_t>s, h, now, NULL)
        try:
            value = self._lookup_at(key, h, s, now, NULL, False)
        finally:
            if PyList_GET_SIZE(self._dead):     # nothing else can be waiting after a look-up
                self._flush()
        if value is _MISSING:
            return type(self).__missing__(self, key)
        return value

    def __missing__(self, key):
        raise KeyError(key)

    def __setitem__(self, key, value):
        if self.plain:
            self._put_plain(key, ac_hash(<PyObject*>key), value)
        else:
            self._set(key, value, None, None, None, None, None, False)

    def set(self, key, value, *, ttl=None, cost=None, size=None, namespace=None, features=None):
        """Store a value.

        ttl: seconds after which it is never served (this entry's ceiling). cost: of a miss of this
        key. size: in the unit of `maxsize`, in place of `getsizeof`. namespace: a hashable label
        whose keys behave alike. features: mapping str -> float, int or str, for the model.
        ValueError names the argument and the accepted range; nothing is stored or lost then.
        """
        self._set(key, value, ttl, cost, size, namespace, features, False)

    def _set_loaded(self, key, value, ttl, seconds, size, namespace, features):
        """Store a value whose load took `seconds`: the key's cost is their running mean.

        0 is a clock too coarse to tell, or standing still: the cost is not known then.
        """
        self._set(key, value, ttl, seconds if seconds > 0 else None, size, namespace, features, True)

    def _set_renewed(self, key, value, ttl, cost, seconds, size, namespace, features):
        """Store what a reload behind the requests' back came to, unless the key was stored or deleted meanwhile."""
        cdef bint measured = cost is None
        if measured and seconds > 0:
            cost = seconds
        self._set(key, value, ttl, cost, size, namespace, features, measured, True)

    def _refresh_failed(self, key):
        """A reload behind the requests' back came to nothing: the next one may be asked for."""
        cdef uint32_t r
        cdef Py_hash_t h = PyObject_Hash(key)
        if self.x.fresh is not NULL:
            r = fresh_find(self.x.fresh, h)
            if r != NIL:
                fresh_refused(self.x.fresh, r)

    @cython.final
    cdef void _void(self, Py_hash_t h) noexcept:
        """The user deletes a value: what is reloaded now is void, and the next load says nothing of change."""
        cdef uint32_t r
        if self.x.fresh is not NULL:
            r = fresh_find(self.x.fresh, h)
            if r != NIL:
                fresh_refused(self.x.fresh, r)
                self.x.fresh.keys[r].known = False

    def __delitem__(self, key):
        cdef Py_hash_t h = PyObject_Hash(key)
        cdef int64_t now = self._maybe_now(), s
        try:
            self._drop_spare(key)
            self._void(h)
            s = self._held(key, h, now)
            if s == NIL:
                self._absent(key, now)
                raise KeyError(key)
            self._take(<uint32_t>s, C_DELETED, now)
        finally:
            self._flush()

    @cython.final
    cdef int _absent(self, object key, int64_t now) except -1:
        """The user deletes what is not held."""
        cdef bint early
        if self.x.kind == LEARNED:
            early = self._left_early(key, now)
            expiry_absent(&self.x, PyObject_Hash(key), now, early)
        return 0

    def _excuse(self, key):
        """An early removal of this key lost nothing: what it stands for is still where it was."""
        cdef int64_t now = self._maybe_now()
        if self.x.kind == LEARNED and self._left_early(key, now):
            expiry_forgive(&self.x, PyObject_Hash(key))

    def _pop(self, key):
        """Remove a key and return its value, or _core.MISSING."""
        cdef Py_hash_t h = PyObject_Hash(key)
        cdef int64_t now = self._maybe_now(), s
        try:
            self._drop_spare(key)
            self._void(h)
            s = self._held(key, h, now)
            if s == NIL:
                self._absent(key, now)
                return _MISSING
            value = self._value_at(s)
            self._take(<uint32_t>s, C_DELETED, now)
        finally:
            self._flush()
        return value

    def popitem(self):
        """Remove the policy's victim and return it as (key, value). KeyError when the cache is empty."""
        cdef int64_t now = self._maybe_now()
        cdef uint32_t s
        try:
            self._due(now)
            s = self.policy.victim(&self.policy, &self.arena)
            if s == NIL:
                raise KeyError(f"{type(self).__name__} is empty") from None
            # The pair is made last: a new tuple may collect garbage, whose finalizers may call in.
            key = self._key_at(s)
            value = self._value_at(s)
            self._take(s, C_DELETED, now)
        finally:
            self._flush()
        return key, value

    def __contains__(self, key):
        """Is the key held? Not a request: nothing is counted, reordered or learned."""
        cdef Py_hash_t h = PyObject_Hash(key)
        cdef int64_t now = self._maybe_now(), s
        try:
            s = self._held(key, h, now)
        finally:
            self._flush()
        return s != NIL

    def __len__(self):
        if self.x.kind != NEVER:
            self._due(self._maybe_now())
            self._flush()
        return self.arena.n

    def _keys_held(self):
        """A snapshot of the keys, in the policy's order from the oldest."""
        return [key for key, _ in self._pairs_held()]

    def _pairs_held(self):
        """A snapshot of (key, value), in the policy's order from the oldest. Not a request."""
        cdef uint32_t s = NIL
        cdef Py_ssize_t i
        cdef list held = []
        if self.x.kind != NEVER:
            self._due(self._maybe_now())
            self._flush()
        # References first, tuples after: making these may collect garbage, whose finalizers may call in.
        while True:
            s = self.policy.after(&self.policy, &self.arena, s)
            if s == NIL:
                break
            held.append(self._key_at(s))
            held.append(self._value_at(s))
        return [(held[i], held[i + 1]) for i in range(0, len(held), 2)]

    def __iter__(self):
        return iter(self._keys_held())

    def clear(self):
        """Remove every entry."""
        cdef uint32_t s, i, following
        cdef int64_t now = self._maybe_now()
        self._due(now)
        # Asked for the first one each time, a policy without an order of its own would look at every empty slot before it again.
        s = self.policy.after(&self.policy, &self.arena, NIL)
        while s != NIL:
            following = self.policy.after(&self.policy, &self.arena, s)
            self._take(s, C_CLEARED, now)
            s = following
        if self.tape is not None:
            tape_note(&self.tape.t, 0, self._note_time(now), NOTE_CLEAR)
        if self.policy.clear is not NULL:
            self.policy.clear(&self.policy, &self.arena)
        fresh, self._fresh = self._fresh, []
        early, self._early = self._early, {}
        spent, self._spent = self._spent, []
        spare, self._spare = self._spare, {}
        if self.x.fresh is not NULL:
            for s in range(1, self.x.fresh.top):
                fresh_refused(self.x.fresh, s)
                self.x.fresh.keys[s].known = False
        for i in range(self.x.n_banks + 1):
            guard_forgive_all(expiry_nth_bank(&self.x, i))
        if self.x.journal is not NULL:
            journal_finish_all(self.x.journal, OUT_DELETED, now)
        fresh.clear()
        early.clear()
        spent.clear()
        spare.clear()
        self._flush()

    def expire(self, time=None):
        """Remove what is due, at `time` (seconds of the timer) or now, and return it as [(key, value), ...]."""
        cdef int64_t now, until, at
        cdef uint32_t s
        cdef int budget = 2147483647
        cdef double d = 0
        cdef list dead
        cdef Py_ssize_t i
        if time is not None:
            d = _number(time, "time", "seconds of the timer")
            if isnan(d):
                raise ValueError("time: NaN is not accepted; the accepted range is any number of seconds of the timer")
        if self.x.kind == NEVER:
            return []
        now = self._now()
        until = now if time is None else to_ns(d)
        if until <= now:
            while True:
                s = expiry_due(&self.x, until, &at, &budget)
                if s == NIL:
                    break
                self._take(s, C_EXPIRED, at)
        else:
            # A look ahead: only what has a date already, and time does not move for it.
            self._due(now)
            for s in range(1, self.arena.top):
                if not self.arena.slots[s].used:
                    continue
                at = expiry_valid(&self.x, s)
                if self.x.kind == IDLE and later(self.x.lives[s].rec.last, self.x.ttl) < at:
                    at = later(self.x.lives[s].rec.last, self.x.ttl)
                if at <= until and at != INT64_MAX:
                    if self.x.journal is not NULL:
                        self.x.lives[s].rec.bound = BY_CEILING
                        expiry_note_gone(&self.x, s, now)
                    self._take(s, C_EXPIRED, at)
        if PyList_GET_SIZE(self._spent):
            self._keep_spent()
        self._whole()
        dead = self._removed()
        self._tell(dead)
        return [(dead[i], dead[i + 1]) for i in range(0, len(dead), 4) if dead[i + 2] == C_EXPIRED]

    def expires_in(self, key):
        """Seconds until the entry is served no more at the latest; inf when nothing is set; KeyError if not held.

        A learned expiry may let go earlier, when it finds that nobody will ask.
        """
        cdef Py_hash_t h = PyObject_Hash(key)
        cdef int64_t now = self._maybe_now(), s, at
        try:
            s = self._held(key, h, now)
        finally:
            self._flush()
        if s == NIL:
            raise KeyError(key)
        if self.x.kind == NEVER:
            return INFINITY
        at = expiry_valid(&self.x, s)
        if self.x.kind == IDLE and later(self.x.lives[s].rec.last, self.x.ttl) < at:
            at = later(self.x.lives[s].rec.last, self.x.ttl)
        return INFINITY if at == INT64_MAX else <double>(at - now) / 1e9

    def resize(self, maxsize):
        """Change the bound; victims leave until the rest fits."""
        cdef double limit = INFINITY if maxsize is None else _number(maxsize, "maxsize", "zero or more, math.inf or None")
        cdef int64_t now
        if limit < 0 or isnan(limit):
            raise ValueError(f"maxsize: {maxsize!r} is not accepted; the accepted range is zero or more, math.inf or None")
        now = self._maybe_now()
        self._due(now)
        self.limit = limit
        self._maxsize = maxsize if maxsize is not None else INFINITY
        self.policy.capacity = limit
        if self.policy.resize is not NULL:
            self.policy.resize(&self.policy, &self.arena)
        while self.arena.n > 0 and self.total > self.limit:
            self._evict(self.policy.victim(&self.policy, &self.arena), now)
        self._flush()

    def age_counts(self):
        """Halve what the policy has counted of every entry's uses, in one pass over all of them.

        For policies that count for ever, as "lfu" does: when what was popular once should weigh less than what is now.
        ValueError for a policy that has no such counts.
        """
        if self.policy.age is NULL:
            raise ValueError(f"age_counts: the policy {self._policy_name!r} keeps no counts that would have to age")
        self.policy.age(&self.policy, &self.arena)

    def getsizeof(self, value):
        """The size of a value, in the unit of `maxsize`; of a weigher that counts keys, what it says of the value alone."""
        return 1 if self._sizer is None else self._sizer(value)

    @property
    def maxsize(self):
        return self._maxsize

    @property
    def currsize(self):
        if self.x.kind != NEVER:
            self._due(self._maybe_now())
            self._flush()
        return self.total if self.float_sizes else int(self.total)

    @property
    def timer(self):
        """The callable that gives the time in seconds, or None for the coarse monotonic clock."""
        return self._timer

    @property
    def policy_name(self):
        return self._policy_name

    # -- state ---------------------------------------------------------------------------

    def _moment(self):
        """The latest time seen, in nanoseconds."""
        return self._now()

    def _books(self):
        """Of all banks that promise something: requests that were protected, and how many more were lost than alpha allows for."""
        cdef uint32_t i
        cdef uint64_t protected_ = 0
        cdef double over = 0
        cdef Guard* g
        for i in range(self.x.n_banks + 1):
            g = expiry_nth_bank(&self.x, i)
            if g.alpha >= 1:
                continue        # off: nothing is promised, so nothing can go wrong
            protected_ += g.protected_
            over += <double>g.lost - g.alpha * <double>g.protected_
        return protected_, over

    def _banks(self):
        """Each bank's books: label, alpha, protected, lost, in flight, credit. The last is everybody else's."""
        cdef uint32_t i
        cdef Guard* g
        if self.x.kind != LEARNED:
            return []
        now = self._now()
        out = []
        for i in range(self.x.n_banks + 1):
            g = expiry_nth_bank(&self.x, i)
            guard_expire(g, now)
            out.append((self._bank_labels[i] if i < self.x.n_banks else None, g.alpha, g.protected_, g.lost, g.ghosts.n,
                        guard_credit(g)))
        return out

    @property
    def memory_price(self):
        """Cost per unit of size and second that is in force: stated, or learned from evictions where that is higher."""
        return self.brain.g.price * 1e9 if self.x.kind == LEARNED else 0.0

    def _names(self):
        """The numbers of namespaces, by label, and of features, by name."""
        return dict(self._namespaces), {name: at for at, name in enumerate(self.brain.feature_names)}

    def _adopt(self, list labels, list names):
        """Numbers for these namespaces, known or new (0: no room); and room for these features, while there is."""
        numbers = []
        for label in labels:
            numbers.append(self._namespace(label))
        for name in names:
            self.brain.place(name)
        return numbers

    # -- the learner's side --------------------------------------------------------------

    def _learn(self, int events=512):
        """One bounded step of learning. True when there is more to do at once.

        Reads at most `events` records of the ring, moves every due wait on, and lets go what the
        verdict and the guard agree on.
        """
        cdef int64_t now, at
        cdef int budget = events
        cdef bint more = False
        cdef uint32_t s
        if self.x.kind != LEARNED:
            return False
        now = self._now()
        if self.x.ring is not NULL:
            self._read(events)
            more = self.ring.tail != self.ring.head
            # Waits and entries in the order of their time, as without a thread.
            self.x.ring = NULL
            while budget > 0:
                s = expiry_due(&self.x, now, &at, &budget)
                if s == NIL:
                    break
                self._take(s, C_EXPIRED, at)
            self.x.ring = &self.ring
            more = more or budget <= 0
        else:
            self._due(now)
        self._flush()
        return more

    def _pace(self, bint slower):
        """Follow half as many keys, or an eighth, or look less often at the entries of the others; with leisure, back again."""
        cdef Engine* g
        cdef uint64_t told, lost, read
        if self.x.ring is NULL:
            return
        g = self.brain.g
        told, lost = self.ring.head - self.told_seen, self.ring.lost - self.lost_seen
        self.told_seen, self.lost_seen = self.ring.head, self.ring.lost
        read = told - lost if told > lost else 0
        if slower and not lost and g.arena.n <= LEAST_FOLLOWED:
            # Fewer would teach nothing worth the name: what is left are verdicts on entries of keys that are not followed.
            self.leisure = 0
            if self.x.seldom < MOST_SELDOM:
                self.x.seldom += 1
        elif slower or lost:
            self.leisure = 0
            for _ in range(3):
                if g.sample <= <uint64_t>1 << 48:
                    break
                _engine_thin(g)
                told >>= 1
                if told <= read:        # what was read would have been all
                    break
        else:
            self.leisure += 1
            if self.leisure >= 30 and self.x.seldom > 0:
                self.leisure = 0
                self.x.seldom -= 1
            elif self.leisure >= 30 and g.sample < <uint64_t>0xFFFFFFFFFFFFFFFF and g.arena.n < g.capacity // 2:
                self.leisure = 0
                g.sample = (g.sample << 1) | 1

    @cython.final
    cdef void _read(self, int events):
        cdef uint64_t head = self.ring.head
        if head - self.ring.tail > <uint64_t>events:
            # Only so many now, to keep the interpreter lock short.
            self.ring.head = self.ring.tail + events
        expiry_drain(&self.x)
        self.ring.head = head

    def _counters(self):
        """Counts as a dict, for `stats`."""
        cdef Guard* g = &self.x.guard
        cdef bint learned = self.x.kind == LEARNED
        banks = self._banks()
        return {
            "hits": self.hits, "misses": self.misses, "inserts": self.inserts, "evictions": self.evictions,
            "expirations": self.expirations, "premature": sum([b[3] for b in banks]),
            "protected": sum([b[2] for b in banks]),
            "premature_budget": sum([b[1] * <double>b[2] + 1 for b in banks], 0.0),
            "in_flight": sum([b[4] for b in banks]),
            "refused": expiry_refused(&self.x) if learned else 0,
            # Of the bank that has least to spend: below nought, something is held to the end of its window.
            "credit": min([b[5] - b[4] for b in banks]) if learned else 0.0,
            "banks": banks,
            "worst": g.worst if learned else -1.0,
            "rung": g.rung if learned else 0,
            "events_lost": self.ring.lost if learned else 0,
            "stale_served": self.saved + (self.x.fresh.stale if self.x.fresh is not NULL else 0),
            "refreshes": self.x.fresh.refreshes if self.x.fresh is not NULL else 0,
        }

    def _freshness(self):
        """What is believed of staleness, as a dict; empty unless validities are learned."""
        return _believed(self.x.fresh)

    def _fresh_state(self):
        """What learned validity may take to another process, arrays as bytes; None unless validities are learned.

        Not the books of the budget: what was read and risked, found stale and asked for (docs/state.md).
        """
        return None if self.x.fresh is NULL else _save_fresh(self.x.fresh)

    def _fresh_restore(self, dict state):
        """Take over what `_fresh_state` gave, checked and clipped, if validities are learned."""
        if self.x.fresh is not NULL:
            _restore_fresh(self.x.fresh, state)

    def _watched(self, key):
        """Is this entry's validity learned, and not declared?"""
        cdef Py_hash_t h = PyObject_Hash(key)
        cdef int64_t now = self._maybe_now(), s
        try:
            s = self._held(key, h, now)
        finally:
            self._flush()
        return s != NIL and life_fresh(&self.x, <uint32_t>s) != NIL

    def _explain(self, key):
        """What is known of an entry, as a dict; KeyError when it is not held."""
        cdef Py_hash_t h = PyObject_Hash(key)
        cdef int64_t now = self._maybe_now(), s
        cdef Life l
        cdef Tracker t
        cdef bint followed = False
        cdef double w[EXPERTS]
        cdef double by[NB]
        cdef double size, credit = 0
        cdef uint64_t lost = 0, protected_ = 0
        cdef uint32_t flying = 0
        cdef Guard* bank
        cdef int bins = 0, link = 4, e
        cdef int64_t ceiling = INT64_MAX, window = 0, floor = 0
        try:
            s = self._held(key, h, now)
            if s == NIL:
                raise KeyError(key)
            # Copies first: making Python objects may collect garbage, whose finalizers may call in.
            size = policy_weight(&self.policy, <uint32_t>s)
            if self.x.kind != NEVER:
                l = self.x.lives[s]
                ceiling = expiry_valid(&self.x, <uint32_t>s)
            if self.x.kind == LEARNED:
                window, floor = life_window(&self.x, &l), life_floor(&self.x, <uint32_t>s)
                bank = expiry_bank(&self.x, l.rec.ns)
                guard_expire(bank, now)
                credit, flying, lost, protected_ = guard_credit(bank), bank.ghosts.n, bank.lost, bank.protected_
                followed = expiry_portrait(&self.x, <uint32_t>s, now, NULL, &t)
                if l.breakeven > 0:
                    memcpy(w, engine_weights(self.brain.g, &t), sizeof(w))
                    for e in range(HAZARDS):
                        # Links that take no part weigh nothing; between equals, the key's own table.
                        if w[HAZARD + e] > w[HAZARD + link]:
                            link = e
                    bins = engine_distribution(self.brain.g, &t, link, by)
        finally:
            self._flush()
        out = {"kind": self.x.kind, "policy": self._policy_name, "size": size}
        if self.x.kind == NEVER:
            return out
        out.update(idle=(now - l.rec.last) / 1e9, expires_in=INFINITY if ceiling == INT64_MAX else (ceiling - now) / 1e9,
                   accesses=l.rec.count, bound=l.rec.bound)
        if self.x.kind == IDLE:
            out["expires_in"] = min(out["expires_in"], (later(l.rec.last, self.x.ttl) - now) / 1e9)
        if self.x.kind != LEARNED:
            return out
        out.update(cost=l.cost, breakeven=l.breakeven / 1e9, window=INFINITY if window == INT64_MAX else window / 1e9,
                   floor_left=max(0.0, (floor - now) / 1e9) if floor > -INT64_MAX else 0.0, followed=followed,
                   guard={"credit": credit, "in_flight": flying, "premature": lost, "protected": protected_})
        if l.breakeven <= 0:
            return out
        out.update(hold=bool(t.hold), back=t.back, ratio=t.ratio,
                   verdicts=[(e, w[e], bool((t.holding >> e) & 1)) for e in range(EXPERTS) if w[e] > 0],
                   gap1=edge(t.rec.gap1 - 1) / 1e9 if t.rec.gap1 else None,
                   features=[t.x[e] for e in range(FEATURES)],
                   strongest=HAZARD + link,
                   distribution=[(edge(t.bin + e + 1) / 1e9, by[e]) for e in range(bins)])
        return out

    # -- the log of decisions ------------------------------------------------------------

    @cython.final
    cdef int _log_if_full(self, Py_hash_t h) except -1:
        """Where no thread does it, an operation on a logged key writes what has gathered."""
        if self.x.ring is NULL and self.x.journal.done.n >= 1024 and self._write_log is not None \
                and journal_samples(self.x.journal, h):
            self._write_log()
        return 0

    def _log_start(self, double sample, uint64_t salt, write):
        """Keep a journal; `write` is called, by operations on logged keys, when it has filled up."""
        cdef Journal* j
        if self.x.kind != LEARNED:
            raise ValueError("log_decisions: only a learned expiry decides; this cache has none")
        j = _journal_new(sample, salt, self._now())
        _journal_gone(self.x.journal)
        self.x.journal = j
        self._write_log = write

    def _log_rows(self, int most, bint closing=False):
        """The oldest finished decisions. `closing` finishes the open ones too: what comes of them is not known."""
        cdef int64_t now
        if self.x.journal is NULL:
            return []
        now = self._now()
        if self.x.ring is NULL:
            self._due(now)
            self._flush()
        if self.x.journal is NULL:      # the timer and the callbacks are the user's
            return []
        journal_sweep(self.x.journal, now)
        if closing:
            journal_finish_all(self.x.journal, OUT_OPEN, now)
        return _journal_rows(self.x.journal, most)

    def _log_stop(self):
        """Forget the journal; from here on it costs nothing."""
        cdef Journal* j = self.x.journal
        self.x.journal = NULL
        self._write_log = None
        _journal_gone(j)

    def _log_state(self):
        """Of the journal: open and waiting decisions, dropped ones, the share of keys sampled now."""
        return {} if self.x.journal is NULL else _journal_state(self.x.journal)

    def _labels(self):
        """Number of a namespace -> its label."""
        return {number: label for label, number in list(self._namespaces.items())}

    # -- recordings ----------------------------------------------------------------------

    def _tape_start(self, Taper tape):
        """Note every operation from here on; who was told until now hears no more."""
        self.tape = tape
        self._choose_ways()

    def _tape_stop(self, Taper tape):
        """No more notes on this tape; from here on they cost nothing."""
        if self.tape is tape:
            self.tape = None
            self._choose_ways()

    @cython.final
    cdef inline int64_t _note_time(self, int64_t now) noexcept:
        """`now`, or the time of a store that has none."""
        return now if self.timed else coarse_now()

    @cython.final
    cdef int _note_hit(self, uint32_t s, Py_hash_t h, int64_t now) except -1:
        cdef Note* n = tape_note(&self.tape.t, h, self._note_time(now), NOTE_HIT)
        if n is not NULL:
            n.size = policy_weight(&self.policy, s)
            if self.x.kind == LEARNED:
                n.ns = self.x.lives[s].rec.ns
        return self.tape._tell()

    @cython.final
    cdef void _note_set(self, Py_hash_t h, int64_t now, double size, double cost, int64_t ceiling, uint16_t ns, uint8_t what) noexcept:
        """The caller lets the tape tell when its own work is done."""
        cdef Note* n = tape_note(&self.tape.t, h, self._note_time(now), what)
        if n is NULL:
            return
        n.size = size
        n.cost = <float>cost
        n.ns = ns
        if self.x.kind == FIXED and later(now, self.x.ttl) < ceiling:
            ceiling = later(now, self.x.ttl)
        if ceiling < INT64_MAX and self.timed:
            n.ttl = <double>(ceiling - now) / 1e9

    @cython.final
    cdef inline int _whole(self) except -1:
        """Every operation comes by here when its structures should be whole again; a debug build makes sure."""
        if ADAPTCACHE_CHECK:
            self._check_in_turn()
        return 0

    cdef int _check_in_turn(self) except -1:
        """Checked each time while there is little to check, else once for every so many slots and memoirs there are."""
        cdef uint64_t work = self.arena.cap
        if not self.ready:
            return 0
        if self.x.engine is not NULL:
            work += self.x.engine.arena.cap + self.x.engine.attic.n
        if self.x.fresh is not NULL:
            work += self.x.fresh.top
        self.turns += 1
        if work <= CHECKED_EACH_TIME or self.turns * (CHECKED_EACH_TIME // 4) >= work:
            self.turns = 0
            Store._check(self)
        return 0

    def _check(self):
        """Assert every invariant of every structure; an expensive no-op when all is well."""
        cdef uint32_t s, i, r, n = 0
        cdef int64_t attached = 0
        cdef double total = 0
        cdef uint32_t at = 0
        cdef Guard* g
        if not self.policy.check(&self.policy, &self.arena):
            raise AssertionError("the policy's order is damaged")
        if self.table.n != self.arena.n:
            raise AssertionError("table and arena count differently")
        if PyList_GET_SIZE(self._pairs) < 2 * <Py_ssize_t>self.arena.cap:
            raise AssertionError("fewer than two references a slot")
        for s in range(1, self.arena.cap):
            if not self.arena.slots[s].used:
                if self._key_at(s) is not None or self._value_at(s) is not None:
                    raise AssertionError("a free slot holds a reference")
                continue
            n += 1
            total += policy_weight(&self.policy, s)
            r = table_first(&self.table, table_tag(&self.table, self.arena.slots[s].hash), &at)
            while r != NIL and r != s:
                r = table_next(&self.table, table_tag(&self.table, self.arena.slots[s].hash), &at)
            if r != s:
                raise AssertionError("a held slot cannot be found")
            if self.x.kind != NEVER:
                if expiry_due_at(&self.x, s) < INT64_MAX and self.x.wheel.timers[s].bucket == 0xFFFF:
                    raise AssertionError("an entry with a date has no timer")
                if expiry_due_at(&self.x, s) > expiry_valid(&self.x, s):
                    raise AssertionError("an entry is looked at only after its validity")
                r = life_fresh(&self.x, s)
                if r != NIL:
                    attached += 1
                    if not self.x.fresh.keys[r].held or self.x.fresh.keys[r].hash != self.arena.slots[s].hash:
                        raise AssertionError("an entry's validity is in a record of something else")
        if n != self.arena.n:
            raise AssertionError("slots in use were miscounted")
        if not abs(total - self.total) <= 1e-9 * (1 + abs(total)):
            raise AssertionError(f"currsize is {self.total}, the entries sum to {total}")
        if self.total > self.limit * (1 + 1e-12):
            raise AssertionError("more is held than maxsize allows")
        if not wheel_sound(&self.x.wheel):
            raise AssertionError("a wheel is damaged")
        if self.x.engine is not NULL and not wheel_sound(&self.x.engine.wheel):
            raise AssertionError("the learner's wheel is damaged")
        if self.x.engine is not NULL and not attic_sound(&self.x.engine.attic):
            raise AssertionError("the attic is damaged")
        if self.x.fresh is not NULL:
            if not fresh_sound(self.x.fresh):
                raise AssertionError("the records of change are damaged")
            for r in range(1, self.x.fresh.top):
                attached -= self.x.fresh.keys[r].held
            if attached != 0:
                raise AssertionError("a record of change speaks of no entry, or of several")
        for i in range(self.x.n_banks + 1):
            g = expiry_nth_bank(&self.x, i)
            if not wheel_sound(&g.wheel):
                raise AssertionError("a wheel is damaged")
            if self.x.kind == LEARNED and g.alpha < 1 and not g.expected:
                if g.lost + g.ghosts.n > g.alpha * <double>g.protected_ + 1 or g.worst > 0:
                    raise AssertionError("the premature-expiry promise is broken")

MISSING = _MISSING
ALIKE = MOST_ALIKE

cdef dict _believed(Fresh* f):
    """Reads, stale reads among them as believed, audits and what they came to, and reloads."""
    if f is NULL:
        return {}
    return {"reads": f.reads, "believed": fresh_stale(f), "bias": fresh_bias(f), "audits": f.audits,
            "audited": f.audited, "outcomes": f.outcomes, "refreshes": f.refreshes, "stale": f.stale, "theta": f.theta,
            "told": f.spent, "keys": f.top - 1}

cdef double _number(object value, str name, str accepted) except? -1:
    """A float of a number; TypeError names the argument for anything else."""
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{name}: expected {accepted}, got {type(value).__name__}")
    try:
        return float(value)
    except TypeError:
        raise TypeError(f"{name}: expected {accepted}, got {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name}: too large; the accepted range is {accepted}") from None

cdef uint64_t _fnv(str text):
    """FNV-1a: the same category in every process and run, unlike `hash`."""
    cdef uint64_t h = 14695981039346656037
    cdef const unsigned char[::1] data = text.encode("utf-8", "surrogatepass")
    cdef Py_ssize_t i
    for i in range(data.shape[0]):
        h = (h ^ data[i]) * <uint64_t>1099511628211
    return h

cdef uint64_t _label_name(object label):
    """A number for a namespace's label, the same in every process; 0 where the label means nothing elsewhere."""
    cdef uint64_t h = 14695981039346656037, part
    if type(label) is str:
        return _fnv(label) | 1
    if type(label) is bytes:
        return _fnv("bytes " + label.hex()) | 1
    if type(label) in (int, bool, float):
        # Hashes of numbers are not salted, and equal for equal numbers of whatever type.
        return 0 if label != label or label in (INFINITY, -INFINITY) else mix64(<uint64_t><int64_t>hash(label)) | 1
    if type(label) is not tuple:
        return 0
    for inner in label:
        part = _label_name(inner)
        if part == 0:
            return 0
        h = mix64(h ^ part)
    return h | 1

# Classic: a Store that keeps cachetools' manners, which differ from ours where expiry, order and subclasses
# are concerned:
#
# - Subclasses see what happens: evictions call an overridden `popitem`, `popitem` an overridden `__delitem__`,
#   and so on. What is overridden is looked up once, at construction; a class that overrides nothing never asks.
# - Entries are iterated in the order in which their keys came, whatever the policy makes of them (`came`).
# - Time is whatever the timer returns, and is only added to and compared: floats, integers, datetimes. So
#   deadlines are objects, beside the values, and neither the wheel nor the kinds of expiry take part.
# - A look-up never removes what has expired; it is there until something that expires entries comes by.
#
# The order inside an operation is that of Store: user code, C only, and references last. Comparing deadlines
# may be user code, so whoever compared looks again whether it still speaks of the same entry.

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.object cimport Py_LT

from copy import deepcopy as _deepcopy
import heapq as _heapq

cdef object _heappush = _heapq.heappush, _heappop = _heapq.heappop, _heapify = _heapq.heapify

def one(value):
    """The size of a value where nobody says otherwise."""
    return 1

cdef inline bint _before(object time, object until) except -1:
    """time < until, by whatever that means for their types."""
    if PyFloat_CheckExact(time) and PyFloat_CheckExact(until):
        return PyFloat_AS_DOUBLE(time) < PyFloat_AS_DOUBLE(until)
    return PyObject_RichCompareBool(time, until, Py_LT)

cdef class Clock:
    """A timer that can be held: within `with clock as time` it stands still. Anything else is the timer's own."""
    cdef object raw
    cdef object held
    cdef Py_ssize_t nesting

    def __init__(self, timer):
        self.raw = timer

    cdef inline object read(self):
        return self.held if self.nesting else self.raw()

    cdef inline object freeze(self):
        if self.nesting == 0:
            self.held = self.raw()
        self.nesting += 1
        return self.held

    cdef inline void thaw(self) noexcept:
        self.nesting -= 1

    def __call__(self):
        return self.read()

    def __enter__(self):
        return self.freeze()

    def __exit__(self, *exc):
        self.thaw()

    def __getattr__(self, name):
        return getattr(self.raw, name)

    def __copy__(self):
        return Clock(self.raw)

    def __deepcopy__(self, memo):
        return Clock(_deepcopy(self.raw, memo))

    def __reduce__(self):
        return Clock, (self.raw,)

cdef class Due:
    """The deadline of one entry, in a heap; `gone` once the entry has left or was stored anew."""
    cdef object until
    cdef uint32_t slot
    cdef bint gone

    def __lt__(self, other):
        return (<Due>self).until < (<Due>other).until

cdef class Classic(Store):
    """A cache with cachetools' semantics; `adaptcache.compat.cachetools` gives it names and signatures."""
    cdef Turns came                 # in the order in which keys came
    cdef Turns due                  # with a `_ttl`: in the order in which they were stored, and so expire
    cdef uint32_t turns_cap
    cdef bint rewrites              # an overwritten entry is as good as new to the policy
    cdef bint generic               # the plain `Cache`: `popitem` is made of the other methods
    cdef bint by_popitem            # evictions are calls of `popitem`
    cdef bint hooked_get            # `__getitem__` or `__contains__` are the user's
    cdef bint hooked_set
    cdef bint hooked_del
    cdef bint hooked_missing
    cdef bint hooked_expire
    cdef Clock _clock               # None: nothing expires
    cdef readonly object _ttl
    cdef readonly object _ttu                # None: `_ttl` holds for all
    cdef list _until                # by slot: a deadline, or with `_ttu` the Due of it
    cdef list _heap                 # of Due
    cdef list _past                 # deadlines of what was removed, until references may be dropped
    cdef readonly object _choice             # of a victim; None: the policy's
    cdef bint choice_by_number
    cdef list _eligible             # the keys, for `_choice`
    cdef uint32_t* place            # slot -> its place in `_eligible`
    cdef uint32_t* seated           # place in `_eligible` -> slot

    def __cinit__(self, *args, **kwargs):
        self._until = []
        self._heap = []
        self._past = []
        self._eligible = []

    def __init__(self, maxsize, getsizeof=None, *, policy="fifo", bint rewrites=False, bint generic=False,
                 Clock clock=None, ttl=None, ttu=None, choice=None, bint choice_by_number=False):
        if maxsize < 0:
            raise ValueError("maxsize must be non-negative")
        Store.__init__(self, maxsize, getsizeof, policy=policy)
        cls = type(self)
        self.sized_by_method = getsizeof is None and cls.getsizeof is not one
        self.counts_entries = getsizeof is None and not self.sized_by_method
        if self.counts_entries:             # which Store could not know
            free(self.weights)
            self.weights = NULL
            self.policy.weights = NULL
        self.rewrites = rewrites
        self.generic = generic
        self._clock = clock
        self._ttl = ttl
        self._ttu = ttu
        self._choice = choice
        self.choice_by_number = choice_by_number
        self.hooked_get = cls.__getitem__ is not Classic.__getitem__ or cls.__contains__ is not Classic.__contains__
        self.hooked_set = cls.__setitem__ is not Classic.__setitem__
        self.hooked_del = cls.__delitem__ is not Classic.__delitem__
        self.hooked_missing = cls.__missing__ is not Store.__missing__
        self.hooked_expire = cls.expire is not Classic.expire
        self.by_popitem = cls.popitem is not Classic.popitem or self.hooked_del or self.hooked_expire or choice is not None \
            or (generic and self.hooked_get)
        self._choose_ways()

    cdef void _choose_ways(self) noexcept:
        self.plain = self._clock is None and not self.by_popitem and self.tape is None

    def __dealloc__(self):
        turns_free(&self.came)
        turns_free(&self.due)
        free(self.place)
        free(self.seated)

    # -- beside the policy's order -------------------------------------------------------

    cdef int _room(self) except -1:
        cdef uint32_t cap
        cdef void* more
        Store._room(self)
        cap = self.arena.cap
        if cap <= self.turns_cap:
            return 0
        if self._clock is not None and <uint32_t>len(self._until) < cap:
            self._until.extend([None] * (cap - len(self._until)))
        if turns_reserve(&self.came, cap) < 0 or (self._clock is not None and self._ttu is None and turns_reserve(&self.due, cap) < 0):
            raise MemoryError
        if self._choice is not None:
            more = realloc(self.place, <size_t>cap * sizeof(uint32_t))
            if more is NULL:
                raise MemoryError
            self.place = <uint32_t*>more
            more = realloc(self.seated, <size_t>cap * sizeof(uint32_t))
            if more is NULL:
                raise MemoryError
            self.seated = <uint32_t*>more
        self.turns_cap = cap
        return 0

    cdef void _take(self, uint32_t s, int cause, int64_t at):
        cdef uint32_t here, last
        turns_leave(&self.came, s)
        if self._clock is not None:
            self._undate(s)
        if self._choice is not None:
            here, last = self.place[s], <uint32_t>PyList_GET_SIZE(self._eligible) - 1
            if here != last:
                self.seated[here] = self.seated[last]
                self.place[self.seated[here]] = here
                self._eligible[here] = self._eligible[last]
            self._eligible.pop()
        Store._take(self, s, cause, at)

    cdef void _undate(self, uint32_t s):
        """Its deadline is over, or another one is coming."""
        until = <object>PyList_GET_ITEM(self._until, s)
        if self._ttu is not None:
            (<Due>until).gone = True
        else:
            turns_leave(&self.due, s)
            if not PyFloat_CheckExact(until):
                self._past.append(until)
        self._until[s] = None

    cdef int _flush(self) except -1:
        if PyList_GET_SIZE(self._past):
            # Into a local, which goes when this returns.
            past, self._past = self._past, []
        return Store._flush(self)

    cdef inline object _deadline(self, uint32_t s):
        until = <object>PyList_GET_ITEM(self._until, s)
        return (<Due>until).until if self._ttu is not None else until

    # -- looking up ----------------------------------------------------------------------

    def __getitem__(self, key):
        cdef Py_hash_t h = ac_hash(<PyObject*>key)
        cdef int64_t s = self._find(key, h)
        cdef double size
        if s == NIL:
            self._no(h)
            return self._instead(key)
        value = self._value_at(<uint32_t>s)
        size = policy_weight(&self.policy, <uint32_t>s)
        self.policy.on_hit(&self.policy, &self.arena, <uint32_t>s)
        if self._clock is not None:
            until = self._deadline(<uint32_t>s)
            if not _before(self._clock.read(), until):
                self._no(h)
                return type(self).__missing__(self, key)
        self._yes(h, size)
        return value

    cdef inline int _no(self, Py_hash_t h) except -1:
        """A request found nothing."""
        self.misses += 1
        if self.tape is not None:
            tape_note(&self.tape.t, h, coarse_now(), NOTE_MISS)
            self.tape._tell()
        return 0

    cdef inline int _yes(self, Py_hash_t h, double size) except -1:
        """A request found what weighs so much."""
        cdef Note* n
        self.hits += 1
        if self.tape is not None:
            n = tape_note(&self.tape.t, h, coarse_now(), NOTE_HIT)
            if n is not NULL:
                n.size = size
            self.tape._tell()
        return 0

    cdef object _instead(self, key):
        """What `__missing__` says. If it stored the key, that was one more use of it."""
        cdef int64_t s
        value = type(self).__missing__(self, key)
        if self.hooked_missing and self._clock is None:
            s = self._find(key, ac_hash(<PyObject*>key))
            if s != NIL:
                self.policy.on_hit(&self.policy, &self.arena, <uint32_t>s)
        return value

    cdef object _ask(self, key):
        """The value of a key that is held and has not expired, or _MISSING. A use of it."""
        cdef Py_hash_t h = ac_hash(<PyObject*>key)
        cdef int64_t s = self._find(key, h)
        cdef double size
        if s == NIL:
            self._no(h)
            return _MISSING
        value = self._value_at(<uint32_t>s)
        size = policy_weight(&self.policy, <uint32_t>s)
        if self._clock is not None:
            until = self._deadline(<uint32_t>s)
            self.policy.on_hit(&self.policy, &self.arena, <uint32_t>s)
            if not _before(self._clock.read(), until):
                self._no(h)
                return _MISSING
        else:
            self.policy.on_hit(&self.policy, &self.arena, <uint32_t>s)
        self._yes(h, size)
        return value

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def get(self, key, default=None):
        """The value of `key`, or `default` if it is not held."""
        if not self.hooked_get:
            value = self._ask(key)
            return default if value is _MISSING else value
        self._freeze()
        try:
            return self[key] if key in self else default
        finally:
            self._thaw()

    def __contains__(self, key):
        """Is the key held? Not a use of it."""
        cdef int64_t s = self._find(key, ac_hash(<PyObject*>key))
        if s == NIL:
            return False
        if self._clock is None:
            return True
        until = self._deadline(<uint32_t>s)
        return _before(self._clock.read(), until)

    def __len__(self):
        if self._clock is not None:
            self._expire_lazily()
        return self.arena.n

    # -- storing -------------------------------------------------------------------------

    def __setitem__(self, key, value):
        if self.plain:
            self._keep_plain(key, value)
        elif self._clock is None:
            self._keep(key, ac_hash(<PyObject*>key), value, None)
        else:
            self._keep_until(key, value)

    cdef int _keep_plain(self, object key, object value) except -1:
        """`cache[key] = value` where nothing expires and nobody listens."""
        cdef Py_hash_t h = ac_hash(<PyObject*>key)
        cdef double size = 1 if self.counts_entries else self._size(key, value)
        cdef PyObject* gone_key = NULL
        cdef PyObject* gone_value = NULL
        cdef Py_ssize_t at
        cdef int64_t s
        cdef uint32_t out
        cdef uint64_t version
        while True:
            if size > self.limit:
                raise ValueError("value too large")
            self._room()
            version = self.table.version
            s = self._find(key, h)
            if self.table.version == version:
                break               # else user code came between: there may be no room now
        if size > self.limit:       # `==` may have called `resize`
            raise ValueError("value too large")
        if s == NIL and self.policy.on_coming is not NULL:
            self.policy.on_coming(&self.policy, &self.arena, h, size)
        while self.arena.n > 0 and self._excess(s, size):
            out = self.policy.victim(&self.policy, &self.arena)
            if out == s:
                s = NIL
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
            turns_leave(&self.came, out)
            self._unlink(out, True)
        if s == NIL:
            turns_join(&self.came, self._link(key, h, value, size, -1))
        else:
            self._weigh(<uint32_t>s, size)
            self._bury(<uint32_t>s, C_REPLACED, 0)
            self._pairs[2 * s + 1] = value
            self._rewritten(<uint32_t>s)
        self._flush()
        if gone_key is not NULL:
            Py_DECREF(<object>gone_key)
            Py_DECREF(<object>gone_value)
        return 0

    cdef int _keep_until(self, object key, object value) except -1:
        cdef Py_hash_t h = ac_hash(<PyObject*>key)
        cdef int64_t s
        time = self._clock.freeze()
        try:
            if self._ttu is None:
                until = time + self._ttl
                self._expire_at(time)
            else:
                self._expire_at(time)
                until = self._ttu(key, value, time)
                if not _before(time, until):
                    # Over before it began: what was held under the key is not valid any more either.
                    s = self._find(key, h)
                    if s != NIL:
                        self._take(<uint32_t>s, C_REPLACED, 0)
                        self._flush()
                    return 0
            self._keep(key, h, value, until)
        finally:
            self._clock.thaw()
        return 0

    cdef int _keep(self, object key, Py_hash_t h, object value, object until) except -1:
        """Store, after as many evictions as it takes. ValueError when it cannot fit, and nothing has changed."""
        cdef double size = self._size(key, value)
        cdef int64_t s
        cdef uint32_t slot
        cdef uint64_t version
        cdef bint coming = False
        if size > self.limit:
            raise ValueError("value too large")
        due = self._due_of(until) if self._ttu is not None else until
        try:
            while True:
                self._room()
                version = self.table.version
                s = self._find(key, h)
                if self.table.version != version:
                    continue        # user code came between: there may be no room now
                if s == NIL and not coming and self.policy.on_coming is not NULL:
                    coming = True
                    self.policy.on_coming(&self.policy, &self.arena, h, size)
                while not self.by_popitem and self._excess(s, size):
                    slot = self.policy.victim(&self.policy, &self.arena)
                    if slot == NIL:
                        raise ValueError("value too large")     # `==` has called `resize`
                    if slot == s:
                        s = NIL
                    self._take(slot, C_EVICTED, 0)
                if not self._excess(s, size):
                    break
                self._push_out()
            if s != NIL:
                slot = <uint32_t>s
                self._weigh(slot, size)
                self._bury(slot, C_REPLACED, 0)
                self._pairs[2 * <Py_ssize_t>slot + 1] = value
                self._rewritten(slot)
                if self._clock is not None:
                    self._undate(slot)
            else:
                slot = self._seat(key, h, value, size)
            if self.tape is not None:
                self._note_set(h, 0, size, -1, INT64_MAX, 0, NOTE_SET)
            if self._clock is not None:
                self._date(slot, due)
        finally:
            self._flush()
        return 0

    cdef int _push_out(self) except -1:
        """`popitem`, which here is no deletion at the user's word."""
        cdef Taper tape = self.tape
        if tape is None:
            self.popitem()
            return 0
        tape.muted += 1
        try:
            self.popitem()
        finally:
            tape.muted -= 1
        return 0

    cdef int _date(self, uint32_t s, object due) except -1:
        """The deadline of an entry; the last thing to be done, since a heap compares."""
        self._until[s] = due
        if self._ttu is None:
            turns_join(&self.due, s)
        else:
            (<Due>due).slot = s
            _heappush(self._heap, due)
        return 0

    cdef inline bint _excess(self, int64_t s, double size) noexcept:
        return self.total + size - (policy_weight(&self.policy, <uint32_t>s) if s != NIL else 0) > self.limit

    cdef uint32_t _seat(self, object key, Py_hash_t h, object value, double size):
        """A slot for a new entry, in every structure; there is room. Runs no user code."""
        cdef uint32_t slot = self._link(key, h, value, size, -1)
        turns_join(&self.came, slot)
        if self._choice is not None:
            self.place[slot] = <uint32_t>PyList_GET_SIZE(self._eligible)
            self.seated[self.place[slot]] = slot
            self._eligible.append(key)
        return slot

    cdef inline void _rewritten(self, uint32_t s) noexcept:
        """What is held was stored again."""
        self.inserts += 1
        if self.rewrites:
            self.policy.on_remove(&self.policy, &self.arena, s, False)
            self.policy.on_insert(&self.policy, &self.arena, s)
        else:
            self.policy.on_hit(&self.policy, &self.arena, s)

    cdef Due _due_of(self, object until):
        cdef Due due = Due()
        due.until = until
        return due

    cdef int _put(self, object key, Py_hash_t h, object value, double size, int64_t now, int64_t ceiling,
                  Touch* touch, bint declared, bint renew, object digest) except -1:
        raise TypeError(f"a {type(self).__name__} stores by [key] = value")

    def set(self, key, value):
        """The same as [key] = value."""
        self[key] = value

    def setdefault(self, key, default=None):
        """The value of a key; `default` is stored first if it is not held."""
        self._freeze()
        try:
            if not self.hooked_get and not self.hooked_set:
                value = self._ask(key)
                if value is not _MISSING:
                    return value
                Classic.__setitem__(self, key, default)
                return default
            if key in self:
                return self[key]
            self[key] = default
            return default
        finally:
            self._thaw()

    # -- removing ------------------------------------------------------------------------

    def __delitem__(self, key):
        cdef int64_t s = self._find(key, ac_hash(<PyObject*>key))
        if s == NIL:
            raise KeyError(key)
        until = None if self._clock is None else self._deadline(<uint32_t>s)
        self._take(<uint32_t>s, C_DELETED, 0)
        self._flush()
        if self._clock is not None and not _before(self._clock.read(), until):
            raise KeyError(key)

    def pop(self, key, default=_NEITHER):
        """Remove a key and return its value, or `default` if it is not held; KeyError without one."""
        self._freeze()
        try:
            if not self.hooked_get and not self.hooked_del:
                value = self._pop_alive(key)
                if value is not _MISSING:
                    return value
            elif key in self:
                value = self[key]
                del self[key]
                return value
        finally:
            self._thaw()
        if default is _NEITHER:
            raise KeyError(key)
        return default

    cdef object _pop_alive(self, object key):
        """Remove what is held and has not expired, and return its value; or _MISSING."""
        cdef Py_hash_t h = ac_hash(<PyObject*>key)
        cdef int64_t s
        cdef uint64_t version
        while True:
            s = self._find(key, h)
            if s == NIL:
                return _MISSING
            value = self._value_at(<uint32_t>s)
            if self._clock is not None:
                version = self.table.version
                mark = <object>PyList_GET_ITEM(self._until, s)
                if not _before(self._clock.read(), self._deadline(<uint32_t>s)):
                    return _MISSING
                if self.table.version != version or <object>PyList_GET_ITEM(self._until, s) is not mark:
                    continue        # the comparison, or another thread meanwhile, changed something
            self._take(<uint32_t>s, C_DELETED, 0)
            self._flush()
            return value

    def popitem(self):
        """Remove an entry, the next one that would have to make room, and return it as (key, value)."""
        if self._clock is None:
            return self._pop_next()
        time = self._clock.freeze()
        try:
            self._expire_at(time)
            return self._pop_next()
        finally:
            self._clock.thaw()

    cdef object _pop_next(self):
        cdef int64_t s
        if self.arena.n == 0:
            raise KeyError(f"{type(self).__name__} is empty") from None
        s = self.policy.victim(&self.policy, &self.arena) if self._choice is None else self._chosen()
        key = self._key_at(<uint32_t>s)
        value = self._value_at(<uint32_t>s)
        if self.generic and self.hooked_get:
            value = self[key]
            del self[key]
        elif self.hooked_del:
            del self[key]
        else:
            self._take(<uint32_t>s, C_DELETED, 0)
            self._flush()
        return key, value

    cdef int64_t _chosen(self) except -1:
        """The slot of the key that `choice` takes."""
        cdef int64_t s
        if self.choice_by_number:
            # The very draws that a list of the keys would cost.
            s = self._choice(range(PyList_GET_SIZE(self._eligible)))
            if s < PyList_GET_SIZE(self._eligible):     # nobody came between
                return self.seated[s]
        key = self._choice(self._eligible)
        s = self._find(key, ac_hash(<PyObject*>key))
        if s == NIL:
            raise KeyError(key)
        return s

    def clear(self):
        """Remove every entry."""
        Store.clear(self)
        heap, self._heap = self._heap, []
        heap.clear()

    # -- time ----------------------------------------------------------------------------

    cdef inline int _freeze(self) except -1:
        if self._clock is not None:
            self._clock.freeze()
        return 0

    cdef inline void _thaw(self) noexcept:
        if self._clock is not None:
            self._clock.thaw()

    def expire(self, time=None):
        """Remove what has expired, at `time` or now, and return it as [(key, value), ...]."""
        cdef list dead
        cdef Py_ssize_t i
        if self._clock is None:
            return []
        self._let_go(self._clock.read() if time is None else time)
        if PyList_GET_SIZE(self._dead) == 0:
            return []
        dead = self._removed()
        self._flush()
        return [(dead[i], dead[i + 1]) for i in range(0, len(dead), 4) if dead[i + 2] == C_EXPIRED]

    cdef int _expire_at(self, object time) except -1:
        if self.hooked_expire:
            self.expire(time)
        else:
            self._let_go(time)
            self._flush()
        return 0

    cdef int _expire_lazily(self) except -1:
        time = self._clock.freeze()
        try:
            self._expire_at(time)
        finally:
            self._clock.thaw()
        return 0

    cdef int _let_go(self, object time) except -1:
        """Remove what has expired at a time. The caller flushes."""
        cdef uint32_t s
        cdef Due due
        if self._ttu is None:
            while self.due.oldest != NIL:
                s = self.due.oldest
                until = <object>PyList_GET_ITEM(self._until, s)
                if _before(time, until):
                    break
                if self.due.oldest == s and <object>PyList_GET_ITEM(self._until, s) is until:
                    self._take(s, C_EXPIRED, 0)
            return 0
        if PyList_GET_SIZE(self._heap) > 2 * <Py_ssize_t>self.arena.n:
            self._heap = [due for due in self._heap if not due.gone]
            _heapify(self._heap)
        while PyList_GET_SIZE(self._heap):
            due = self._heap[0]
            if not due.gone and _before(time, due.until):
                break
            due = _heappop(self._heap)
            if not due.gone:
                self._take(due.slot, C_EXPIRED, 0)
        return 0

    @property
    def currsize(self):
        """What the entries' sizes sum up to."""
        if self._clock is not None:
            self._expire_lazily()
        return self.total if self.float_sizes else int(self.total)

    @property
    def timer(self):
        """The timer, which stands still within `with cache.timer`; None where nothing expires."""
        return self._clock

    def expires_in(self, key):
        """The deadline less the time, whatever they are; inf where nothing expires; KeyError if not held."""
        cdef int64_t s = self._find(key, ac_hash(<PyObject*>key))
        if s == NIL:
            raise KeyError(key)
        if self._clock is None:
            return INFINITY
        until = self._deadline(<uint32_t>s)
        time = self._clock.read()
        if not _before(time, until):
            raise KeyError(key)
        return until - time

    def resize(self, maxsize):
        """Change the bound; entries leave, by `popitem`, until the rest fits."""
        cdef double limit
        if maxsize < 0:
            raise ValueError("maxsize must be non-negative")
        limit = _number(maxsize, "maxsize", "zero or more, or math.inf")
        self.limit = limit
        self._maxsize = maxsize
        self.policy.capacity = limit
        if self.policy.resize is not NULL:
            self.policy.resize(&self.policy, &self.arena)
        while self.arena.n > 0 and self.total > self.limit:
            self._push_out()

    # -- looking at all of it ------------------------------------------------------------

    cdef list _all(self):
        """Key, value and deadline of each entry, flat, in the order in which they came, expired ones too.

        References first, tuples after: making these may collect garbage, whose finalizers may call in.
        """
        cdef uint32_t s = self.came.oldest
        cdef list held = []
        while s != NIL:
            held.append(self._key_at(<uint32_t>s))
            held.append(self._value_at(<uint32_t>s))
            held.append(None if self._clock is None else self._deadline(s))
            s = self.came.turns[s].after
        return held

    def _keys_held(self):
        """A snapshot of the keys, in the order in which they came, expired ones too."""
        return self._all()[::3]

    def _pairs_held(self):
        """A snapshot of (key, value), in the order in which they came, expired ones too."""
        held = self._all()
        return list(zip(held[::3], held[1::3]))

    def __iter__(self):
        return iter(self._keys_held()) if self._clock is None else self._alive()

    def _alive(self):
        """The keys of now that are still there when their turn comes. Time stands still while one is looked at."""
        for key in self._keys_held():
            with self._clock:
                if Classic.__contains__(self, key):
                    yield key

    # -- copies --------------------------------------------------------------------------

    def _state(self):
        """All there is to know, as a dict, for `_revive`. What it holds is shared."""
        cdef uint32_t s = self.came.oldest
        cdef dict number = {}
        cdef list sizes = [], ranks = [], marks = [], dues = []
        held = self._all()
        while s != NIL:
            number[s] = len(number)
            sizes.append(policy_weight(&self.policy, s))
            s = self.came.turns[s].after
        s = self.policy.after(&self.policy, &self.arena, NIL)
        while s != NIL:
            ranks.append(number[s])
            marks.append(_mark(self, s))
            s = self.policy.after(&self.policy, &self.arena, s)
        s = self.due.oldest
        while s != NIL:
            dues.append(number[s])
            s = self.due.turns[s].after
        return {
            "options": {"policy": self._policy_name, "rewrites": self.rewrites, "generic": self.generic,
                        "clock": self._clock, "ttl": self._ttl, "ttu": self._ttu, "choice": self._choice,
                        "choice_by_number": self.choice_by_number},
            "maxsize": self._maxsize, "getsizeof": self._sizer, "float_sizes": self.float_sizes,
            "keys": held[::3], "values": held[1::3], "deadlines": None if self._clock is None else held[2::3],
            "sizes": None if self.counts_entries else sizes, "ranks": ranks, "marks": marks, "dues": dues,
        }

    def _revive(self, dict state):
        """Become what `_state` told of, once, in place of `__init__`."""
        cdef Py_ssize_t i
        cdef list slots = [], keys = state["keys"]
        cdef Py_hash_t h
        cdef uint32_t slot
        Classic.__init__(self, state["maxsize"], state["getsizeof"], **state["options"])
        self.float_sizes = state["float_sizes"]
        for i in range(len(keys)):
            h = PyObject_Hash(keys[i])
            self._room()
            due = None if self._ttu is None else self._due_of(state["deadlines"][i])
            slot = self._seat(keys[i], h, state["values"][i], 1 if state["sizes"] is None else state["sizes"][i])
            slots.append(slot)
            if self._ttu is not None:
                self._date(slot, due)
        for i in state["dues"]:
            self._date(slots[i], state["deadlines"][i])
        ranked = [slots[i] for i in state["ranks"]]
        for i in range(len(ranked)):
            slot = ranked[i]
            self.policy.on_remove(&self.policy, &self.arena, slot, False)
            self.policy.on_insert(&self.policy, &self.arena, slot)
        _put_marks(self, ranked, state["marks"], None)

    def _check(self):
        cdef uint32_t s
        Store._check(self)
        if not turns_sound(&self.came, &self.arena):
            raise AssertionError("the order of arrival is damaged")
        if self._clock is not None and self._ttu is None and not turns_sound(&self.due, &self.arena):
            raise AssertionError("the order of deadlines is damaged")
        if self._choice is not None and len(self._eligible) != self.arena.n:
            raise AssertionError("what may be chosen is not what is held")
        s = self.came.oldest
        while s != NIL:
            if self._choice is not None and (self.seated[self.place[s]] != s or self._eligible[self.place[s]] is not self._key_at(s)):
                raise AssertionError("what may be chosen is not what is held")
            if self._clock is not None and self._ttu is not None and ((<Due>self._until[s]).gone or (<Due>self._until[s]).slot != s):
                raise AssertionError("a deadline is of another entry")
            s = self.came.turns[s].after

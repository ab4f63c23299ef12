# LruCall: a function that remembers its results, with the manners of functools.lru_cache.
#
# What differs from Call is what functools promises otherwise: a lone int or str is its own key, keyword
# arguments count in the order of the call, each hash is asked for once, calls of the same key at the same
# time all run the function, and a call of a function by itself with the same arguments is its own affair.
# Results lie in a Store of policy LRU; this file knows no expiry, no flights and no learner.

cdef object _info
from functools import _CacheInfo as _info

cdef object _KEYWORDS = object()    # stands in keys between the positional arguments and the named ones

cdef class LruCall:
    """A decorated function. `adaptcache.lru_cache` makes them.

    maxsize  an int of zero or more; None: no bound
    typed    arguments that are equal and of different types are different
    """
    cdef vectorcallfunc vectorcall
    cdef Store store
    cdef object function
    cdef bint bounded
    cdef Py_ssize_t most
    cdef bint typed
    cdef Py_hash_t mark_hash
    cdef dict __dict__
    cdef object __weakref__

    def __cinit__(self, function, maxsize, bint typed):
        if not callable(function):
            raise TypeError("the first argument must be callable")
        if maxsize is not None:
            self.most = PyNumber_AsSsize_t(maxsize, OverflowError)
        self.vectorcall = <vectorcallfunc>(_lru_unkept if maxsize is not None and self.most == 0 else _lru_call)
        self.store = Store(None if maxsize is None else self.most, policy="lru")
        self.function = function
        self.bounded = maxsize is not None
        self.typed = typed
        self.mark_hash = hash(_KEYWORDS)

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, <PyObject*>kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def cache_info(self):
        """Report cache statistics"""
        cdef Store store = _lru_store(self)
        return _info(store.hits, store.misses, self.most if self.bounded else None, store.arena.n)

    def cache_clear(self):
        """Clear the cache and cache statistics"""
        cdef Store store = _lru_store(self)
        store.hits = store.misses = 0
        store.clear()

    def _results(self):
        """The Store."""
        return _lru_store(self)

    def __reduce__(self):
        return self.__qualname__        # pickled by name

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

cdef Store _lru_store(LruCall call):
    if call.store is None:
        # The collector has taken it, and a finalizer calls.
        raise ReferenceError("the cache of this function is gone")
    return call.store

cdef object _lru_unkept(object self, PyObject** args, size_t flags, PyObject* names):
    """With maxsize 0, nothing is hashed either."""
    cdef LruCall call = <LruCall>self
    cdef Store store = _lru_store(call)
    store.misses += 1
    return PyObject_Vectorcall(<PyObject*>call.function, args, PyVectorcall_NARGS(flags), names)

cdef object _lru_call(object self, PyObject** args, size_t flags, PyObject* names):
    cdef LruCall call = <LruCall>self
    cdef Store store = call.store
    cdef Args a
    cdef Py_hash_t h
    cdef int64_t s
    cdef object key
    args_of(&a, args, PyVectorcall_NARGS(flags), names, <PyObject*>_KEYWORDS)
    if store is None or call.typed or not _TUPLES_HASH_SO:
        store = _lru_store(call)
        key = _lru_key(call, &a)
        h = PyObject_Hash(key)
        s = store._find(key, h)
    else:
        h = flat_hash(&a, call.mark_hash)
        s = args_find(store, &a, h, flat_same)
        if s == UNSURE:
            key = _lru_key(call, &a)
            s = store._find(key, h)
        elif s == NIL:
            key = _lru_key(call, &a)
    if s != NIL:
        if store.plain:
            return store._hit(<uint32_t>s)
        return store._serve(<uint32_t>s, h, store._maybe_now(), NULL)
    store.misses += 1
    if store.tape is not None:
        tape_note(&store.tape.t, h, store._maybe_now(), NOTE_MISS)
    return _lru_miss(call, store, &a, key, h)

cdef object _lru_miss(LruCall call, Store store, Args* a, object key, Py_hash_t h):
    cdef object value = PyObject_Vectorcall(<PyObject*>call.function, a.args, a.n, a.names)
    # While it ran, another call may have stored the same key; functools keeps the older result where there is a bound.
    if call.bounded and store._find(key, h) != NIL:
        return value
    store._put_plain(key, h, value)
    return value

cdef object _lru_key(LruCall call, Args* a):
    """As functools makes it."""
    cdef size_t i, at, kinds = a.n + a.named if call.typed else 0
    cdef tuple key
    if not call.typed and flat_alone(a):
        return <object>a.args[0]
    key = _pack(a.args, a.n, (1 + 2 * a.named if a.named else 0) + kinds)
    at = a.n
    if a.named:
        _fill(key, &at, a.mark)
        for i in range(a.named):
            _fill(key, &at, item_of(a.names, i))
            _fill(key, &at, a.args[a.n + i])
    for i in range(kinds):
        _fill(key, &at, <PyObject*>Py_TYPE(<object>a.args[i]))
    return key

cdef inline void _fill(tuple key, size_t* at, PyObject* item) noexcept:
    Py_INCREF(<object>item)
    PyTuple_SET_ITEM(key, at[0], <object>item)
    at[0] += 1

cdef LruCall _lru_sample = LruCall(len, None, False)
ac_set_vectorcall(<PyTypeObject*>LruCall, <char*>&_lru_sample.vectorcall - <char*><PyObject*>_lru_sample)

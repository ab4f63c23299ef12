# Call: a function that remembers its results, called without a Python frame.
#
# A hit is a key, a look-up and nothing else. Everything else belongs to Python: `load` runs the
# function, `get` asks whatever is not a plain Store, `make_key` makes keys of any other shape than the
# default. This file knows no flights, no namespaces and no costs.
#
# Why the slot is set by hand: a class with `__call__` is called through tp_call, for which the
# interpreter must first pack every argument into a tuple and a dict, and Cython unpack them.
# With a vectorcall slot (PEP 590) the arguments come as they lie on the caller's stack.

cdef extern from *:
    """
    /* What a static type declares in its definition, which Cython writes without asking us.
       METHOD_DESCRIPTOR: `instance.f(x)` calls f with (instance, x) and makes no bound method. */
    static void ac_set_vectorcall(PyTypeObject *type, Py_ssize_t offset) {
        type->tp_vectorcall_offset = offset;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
        PyType_Modified(type);
    }
    """
    ctypedef struct PyTypeObject:
        pass
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject**, size_t, PyObject*)
    void ac_set_vectorcall(PyTypeObject*, Py_ssize_t)
    size_t PyVectorcall_NARGS(size_t)
    object PyObject_Vectorcall(PyObject*, PyObject**, size_t, PyObject*)
    object PyVectorcall_Call(object, object, PyObject*)
    object PyObject_Call(object, object, PyObject*)
    object PyMethod_New(object, object)

cdef inline tuple _pack(PyObject** args, size_t n, size_t room=0):
    """The positional arguments, and so many places to be filled in behind them."""
    cdef tuple packed = PyTuple_New(n + room)
    cdef size_t i
    for i in range(n):
        Py_INCREF(<object>args[i])
        PyTuple_SET_ITEM(packed, i, <object>args[i])
    return packed

cdef tuple _key(PyObject** args, size_t n, PyObject* names, object mark):
    cdef size_t i, named = PyTuple_GET_SIZE(<object>names)
    cdef list pairs = [(<object>PyTuple_GET_ITEM(<object>names, i), <object>args[n + i]) for i in range(named)]
    if named > 1:
        pairs.sort()                    # names differ, so no value is ever compared
    cdef tuple key = _pack(args, n, named + 1)
    Py_INCREF(mark)
    PyTuple_SET_ITEM(key, n, mark)
    for i in range(named):
        Py_INCREF(<object>PyList_GET_ITEM(pairs, i))
        PyTuple_SET_ITEM(key, n + 1 + i, <object>PyList_GET_ITEM(pairs, i))
    return key

cdef class Call:
    """A decorated function. `adaptcache.cached` makes them.

    cache     a Store that is asked at once; None: `get` is
    get       get(key, default), where `cache` is None
    make_key  key of a call with these arguments; None: they are the key, as `cachetools.keys.hashkey`
              builds it, with `mark` between the positional ones and the sorted (name, value) pairs
    load      makes the result of a call whose key is not held, from what
    load_of   load_of(key, args, kwargs) returns. Two steps, so that only `load` stands between a
              function and its call of itself: CPython 3.12 has little room for that.
    refresh   takes the same as `load`, and has the value reloaded while the caller goes on with the old one;
              None: nobody is asked
    """
    cdef vectorcallfunc vectorcall
    cdef Store store
    cdef object get
    cdef object make_key
    cdef object mark
    cdef object load
    cdef object load_of
    cdef object refresh
    cdef bint direct                # the slot can be found without a key
    cdef Py_hash_t mark_hash
    cdef dict __dict__
    cdef object __weakref__

    def __cinit__(self, Store cache, get, make_key, mark, load, load_of, refresh=None):
        self.vectorcall = <vectorcallfunc>_call
        self.store = cache
        self.get = get
        self.make_key = make_key
        self.mark = mark
        self.load = load
        self.load_of = load_of
        self.refresh = refresh
        self.direct = cache is not None and make_key is None and _TUPLES_HASH_SO
        self.mark_hash = hash(mark)

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, <PyObject*>kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __reduce__(self):
        return self._called()           # pickled by name; copied by not being copied

    def __repr__(self):
        return f"<cached {self._called()} at {<size_t><PyObject*>self:#x}>"

    cdef object _called(self):
        # A partial or another callable object has no name of its own.
        return getattr(self, "__qualname__", "call")

cdef object _call(object self, PyObject** args, size_t flags, PyObject* names):
    cdef Call call = <Call>self
    cdef Store store = call.store
    cdef Args a
    cdef Py_hash_t h
    cdef int64_t now, s
    args_of(&a, args, PyVectorcall_NARGS(flags), names, <PyObject*>call.mark)
    # (The collector takes the fields of what is unreachable away, and a finalizer may call after that.)
    if not call.direct or store is None or not args_sort(&a):
        return _asked(call, &a)
    h = pairs_hash(&a, call.mark_hash)
    now = store._maybe_now()
    s = args_find(store, &a, h, pairs_same)
    if s != NIL and s != UNSURE:
        if store.plain:
            return store._hit(<uint32_t>s)
        if store._serves(<uint32_t>s, now):
            return store._serve(<uint32_t>s, h, now, NULL)
    return _looked_up(call, &a, h, now)

cdef object _looked_up(Call call, Args* a, Py_hash_t h, int64_t now):
    """The call of a key with this hash, at this time; made, for it is needed."""
    cdef bint wanted
    cdef object value, key = _key_of(call, a)
    try:
        value = call.store._lookup_at(key, h, SOMEWHERE, now, NULL, call.refresh is not None)
        wanted = call.store.wanted
    finally:
        call.store._flush()
    return _answered(call, a, key, value, wanted)

cdef object _asked(Call call, Args* a):
    """The call as any store, key function and mapping can answer it."""
    cdef bint wanted = False
    cdef object value, key = _key_of(call, a)
    if call.store is not None:
        try:
            value = call.store._lookup(key, NULL, call.refresh is not None)
            wanted = call.store.wanted
        finally:
            call.store._flush()
    else:
        value = call.get(key, _MISSING)
    return _answered(call, a, key, value, wanted)

cdef inline object _key_of(Call call, Args* a):
    if call.make_key is not None:
        return PyObject_Vectorcall(<PyObject*>call.make_key, a.args, a.n, a.names)
    return _pack(a.args, a.n) if a.named == 0 else _key(a.args, a.n, a.names, call.mark)

cdef object _answered(Call call, Args* a, object key, object value, bint wanted):
    cdef size_t i
    if value is not _MISSING and not wanted:
        return value
    given = call.load_of(key, _pack(a.args, a.n), {
        <object>PyTuple_GET_ITEM(<object>a.names, i): <object>a.args[a.n + i] for i in range(a.named)})
    if wanted:
        call.refresh(*given)
        return value
    return PyObject_Call(call.load, given, NULL)

cdef bint _TUPLES_HASH_SO = _formula_holds()
cdef Call _sample = Call(None, None, None, None, None, None)
ac_set_vectorcall(<PyTypeObject*>Call, <char*>&_sample.vectorcall - <char*><PyObject*>_sample)

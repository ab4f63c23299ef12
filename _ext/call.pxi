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
    cdef size_t n = PyVectorcall_NARGS(flags), i, named = 0
    cdef bint wanted = False
    cdef object key, value
    if call.make_key is not None:
        key = PyObject_Vectorcall(<PyObject*>call.make_key, args, n, names)
    else:
        key = _pack(args, n) if names is NULL else _key(args, n, names, call.mark)
    if call.store is not None:
        try:
            value = call.store._lookup(key, NULL, call.refresh is not None)
            wanted = call.store.wanted
        finally:
            if PyList_GET_SIZE(call.store._dead):
                call.store._flush()
    else:
        value = call.get(key, _MISSING)
    if value is not _MISSING and not wanted:
        return value
    if names is not NULL:
        named = PyTuple_GET_SIZE(<object>names)
    given = call.load_of(key, _pack(args, n), {
        <object>PyTuple_GET_ITEM(<object>names, i): <object>args[n + i] for i in range(named)})
    if wanted:
        call.refresh(*given)
        return value
    return PyObject_Call(call.load, given, NULL)

cdef Call _sample = Call(None, None, None, None, None, None)
ac_set_vectorcall(<PyTypeObject*>Call, <char*>&_sample.vectorcall - <char*><PyObject*>_sample)

"""What the store asks of Python objects on its hot path. See objects.h."""
from cpython.object cimport PyObject

cdef extern from "objects.h":
    enum:
        DEPTH "3"           # tuples within tuples that are looked into
    PyObject* AC_ITEM(list, Py_ssize_t) noexcept            # an item of a list, its reference not counted
    void ac_put(list, Py_ssize_t, PyObject*) noexcept       # a reference as it is; the caller owns the one that was there
    Py_hash_t ac_hash(PyObject*) except -1
    int ac_same(PyObject*, PyObject*, int) noexcept

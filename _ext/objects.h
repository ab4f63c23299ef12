/* What the store asks of Python objects on its hot path, without a call where none is needed.

   Equality: ac_same answers for the types whose `==` runs no user code, and says that it cannot for all others. */
#ifndef ADAPTCACHE_OBJECTS_H
#define ADAPTCACHE_OBJECTS_H
#include <Python.h>
#include <string.h>

#define AC_ITEM(list, i) (((PyListObject *)(list))->ob_item[i])

/* Puts a reference into a list as it is; the one that was there is the caller's from here on. */
static inline void ac_put(PyObject *list, Py_ssize_t i, PyObject *item) {
    AC_ITEM(list, i) = item;
}

/* A str remembers its hash. */
static inline Py_hash_t ac_hash(PyObject *o) {
    if (PyUnicode_CheckExact(o)) {
        Py_hash_t h = ((PyASCIIObject *)o)->hash;
        if (h != -1)
            return h;
    }
    return PyObject_Hash(o);
}

static inline int ac_same_str(PyObject *a, PyObject *b) {
    Py_ssize_t n = PyUnicode_GET_LENGTH(a);
    int kind = PyUnicode_KIND(a);
    return n == PyUnicode_GET_LENGTH(b) && kind == (int)PyUnicode_KIND(b)
        && memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)n * (size_t)kind) == 0;
}

static int ac_same_tuple(PyObject *a, PyObject *b, int depth);

/* 1: equal. 0: not. -1: only `==` can say, and it may run user code. */
static inline int ac_same(PyObject *a, PyObject *b, int depth) {
    if (a == b)
        return 1;
    if (Py_TYPE(a) != Py_TYPE(b))
        return -1;
    if (PyUnicode_CheckExact(a)) {
#if PY_VERSION_HEX < 0x030C0000
        if (!PyUnicode_IS_READY(a) || !PyUnicode_IS_READY(b))
            return -1;
#endif
        return ac_same_str(a, b);
    }
    if (PyLong_CheckExact(a))
        return PyObject_RichCompareBool(a, b, Py_EQ);
    if (PyTuple_CheckExact(a))
        return ac_same_tuple(a, b, depth);
    return -1;
}

static int ac_same_tuple(PyObject *a, PyObject *b, int depth) {
    Py_ssize_t i, n = PyTuple_GET_SIZE(a);
    if (n != PyTuple_GET_SIZE(b))
        return 0;
    if (depth == 0)
        return -1;
    for (i = 0; i < n; i++) {
        int same = ac_same(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i), depth - 1);
        if (same != 1)
            return -1;      /* `==` of tuples asks in order, and stops at the first that differs: let it */
    }
    return 1;
}
#endif

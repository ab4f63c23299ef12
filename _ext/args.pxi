# The arguments of a call as a key, without making it.
#
# A hit needs no key, only the slot of one that is equal. Its hash follows from the hashes of the
# arguments, by the formula of CPython's tuples; then the arguments are compared with the items of the
# keys held. Only what cannot run user code is compared here (`ac_same`). Where nothing but `==` can tell,
# the answer is UNSURE, and the caller makes the key and asks `Store._find`, which knows how to run user code.
#
# The formula (xxHash, as CPython 3.8 has it) is no promise of Python's. So it is tried when the module
# loads, and where it does not hold, every answer is UNSURE.

cdef extern from *:
    """
    #if SIZEOF_PY_HASH_T == 8
    #define AC_ROTATE(x) (((x) << 31) | ((x) >> 33))
    #define AC_P1 ((Py_uhash_t)11400714785074694791ULL)
    #define AC_P2 ((Py_uhash_t)14029467366897019727ULL)
    #define AC_P5 ((Py_uhash_t)2870177450012600261ULL)
    #else
    #define AC_ROTATE(x) (((x) << 13) | ((x) >> 19))
    #define AC_P1 ((Py_uhash_t)2654435761UL)
    #define AC_P2 ((Py_uhash_t)2246822519UL)
    #define AC_P5 ((Py_uhash_t)374761393UL)
    #endif
    static inline Py_uhash_t ac_mix(Py_uhash_t acc, Py_hash_t item) {
        acc += (Py_uhash_t)item * AC_P2;
        return AC_ROTATE(acc) * AC_P1;
    }
    static inline Py_hash_t ac_mixed(Py_uhash_t acc, size_t n) {
        acc += n ^ (AC_P5 ^ (Py_uhash_t)3527539UL);
        return acc == (Py_uhash_t)-1 ? 1546275796 : (Py_hash_t)acc;
    }
    """
    ctypedef size_t Py_uhash_t
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]
    const Py_uhash_t EMPTY "AC_P5"
    Py_uhash_t ac_mix(Py_uhash_t, Py_hash_t) noexcept
    Py_hash_t ac_mixed(Py_uhash_t, size_t) noexcept
    bint is_str "PyUnicode_CheckExact"(PyObject*) noexcept
    bint is_int "PyLong_CheckExact"(PyObject*) noexcept
    bint is_tuple "PyTuple_CheckExact"(PyObject*) noexcept
    size_t size_of "PyTuple_GET_SIZE"(PyObject*) noexcept
    PyObject* item_of "PyTuple_GET_ITEM"(PyObject*, size_t) noexcept
    int compare_str "PyUnicode_Compare"(PyObject*, PyObject*) noexcept

cdef enum:
    UNSURE = -1
    MOST_NAMED = 16                 # keyword arguments that are put in order without making a list

cdef struct Args:
    PyObject** args                 # the positional ones, and behind them the values of the named ones
    size_t n                        # positional
    size_t named
    PyObject* names                 # NULL: none
    PyObject* mark                  # between the positional and the named ones in a key
    uint8_t order[MOST_NAMED]       # the named ones by name, where a key has them so

cdef inline void args_of(Args* a, PyObject** args, size_t n, PyObject* names, PyObject* mark) noexcept:
    a.args = args
    a.n = n
    a.names = names
    a.named = 0 if names is NULL else size_of(names)
    a.mark = mark

cdef inline bint args_sort(Args* a) noexcept:
    """Put the named ones in order; False where that takes user code, or more room than there is."""
    cdef size_t i, j
    if a.named > MOST_NAMED:
        return False
    for i in range(a.named):
        if not is_str(item_of(a.names, i)):
            return False
        j = i
        while j > 0 and compare_str(item_of(a.names, a.order[j - 1]), item_of(a.names, i)) > 0:
            a.order[j] = a.order[j - 1]
            j -= 1
        a.order[j] = <uint8_t>i
    return True

# -- (*args, mark, (name, value), ...), by name: the keys of cachetools

cdef inline Py_hash_t pairs_hash(Args* a, Py_hash_t mark_hash) except -1:
    """Of the key that the arguments would make. The named ones must be in order. Runs user code."""
    cdef Py_uhash_t acc = EMPTY, pair
    cdef size_t i, at
    for i in range(a.n):
        acc = ac_mix(acc, ac_hash(a.args[i]))
    if a.named == 0:
        return ac_mixed(acc, a.n)
    acc = ac_mix(acc, mark_hash)
    for i in range(a.named):
        at = a.order[i]
        pair = ac_mix(EMPTY, ac_hash(item_of(a.names, at)))
        acc = ac_mix(acc, ac_mixed(ac_mix(pair, ac_hash(a.args[a.n + at])), 2))
    return ac_mixed(acc, a.n + 1 + a.named)

cdef inline int pairs_same(Args* a, PyObject* key) noexcept:
    """Is this the key of these arguments? As `ac_same`."""
    cdef size_t i
    cdef int same
    cdef PyObject* pair
    if not is_tuple(key):
        return -1
    if size_of(key) != (a.n + 1 + a.named if a.named else a.n):
        return 0
    for i in range(a.n):
        same = ac_same(item_of(key, i), a.args[i], DEPTH)
        if same != 1:
            return same
    if a.named == 0:
        return 1
    if item_of(key, a.n) != a.mark:
        return -1
    for i in range(a.named):
        pair = item_of(key, a.n + 1 + i)
        if not is_tuple(pair) or size_of(pair) != 2:
            return -1
        same = ac_same(item_of(pair, 0), item_of(a.names, a.order[i]), DEPTH)
        if same == 1:
            same = ac_same(item_of(pair, 1), a.args[a.n + a.order[i]], DEPTH)
        if same != 1:
            return same
    return 1

# -- a lone int or str by itself, or (*args, mark, name, value, ...), as called: the keys of functools

cdef inline bint flat_alone(Args* a) noexcept:
    return a.n == 1 and a.named == 0 and (is_int(a.args[0]) or is_str(a.args[0]))

cdef inline Py_hash_t flat_hash(Args* a, Py_hash_t mark_hash) except -1:
    """Of the key that the arguments would make. Runs user code."""
    cdef Py_uhash_t acc = EMPTY
    cdef size_t i
    if flat_alone(a):
        return ac_hash(a.args[0])
    for i in range(a.n):
        acc = ac_mix(acc, ac_hash(a.args[i]))
    if a.named == 0:
        return ac_mixed(acc, a.n)
    acc = ac_mix(acc, mark_hash)
    for i in range(a.named):
        acc = ac_mix(acc, ac_hash(item_of(a.names, i)))
        acc = ac_mix(acc, ac_hash(a.args[a.n + i]))
    return ac_mixed(acc, a.n + 1 + 2 * a.named)

cdef inline int flat_same(Args* a, PyObject* key) noexcept:
    """Is this the key of these arguments? As `ac_same`."""
    cdef size_t i
    cdef int same
    if flat_alone(a):
        return ac_same(key, a.args[0], DEPTH)
    if not is_tuple(key):
        return -1
    if size_of(key) != (a.n + 1 + 2 * a.named if a.named else a.n):
        return 0
    for i in range(a.n):
        same = ac_same(item_of(key, i), a.args[i], DEPTH)
        if same != 1:
            return same
    if a.named == 0:
        return 1
    if item_of(key, a.n) != a.mark:
        return -1
    for i in range(a.named):
        same = ac_same(item_of(key, a.n + 1 + 2 * i), item_of(a.names, i), DEPTH)
        if same == 1:
            same = ac_same(item_of(key, a.n + 2 + 2 * i), a.args[a.n + i], DEPTH)
        if same != 1:
            return same
    return 1

# -- the slot

ctypedef int (*sameness)(Args*, PyObject*) noexcept

cdef inline int64_t args_find(Store store, Args* a, Py_hash_t h, sameness same) noexcept:
    """The slot of the key of these arguments, NIL, or UNSURE. Runs no user code."""
    cdef uint32_t at = 0, s = table_first(&store.table, table_tag(&store.table, h), &at)
    cdef int equal
    while s != NIL:
        if store.arena.slots[s].hash == h:
            equal = same(a, AC_ITEM(store._pairs, 2 * <Py_ssize_t>s))
            if equal > 0:
                return s
            if equal < 0:
                return UNSURE
        s = table_next(&store.table, table_tag(&store.table, h), &at)
    return NIL

cdef bint _formula_holds():
    """Do tuples hash as `ac_mix` says?"""
    cdef Args a
    cdef object key
    for key in [(), (1,), ("a", 2), (-1, 1.5, None), (b"x", ("y", 3), 2**70, "z")]:
        args_of(&a, &(<PyTupleObject*>key).ob_item[0], len(key), NULL, NULL)
        if pairs_hash(&a, 0) != hash(key):
            return False
    return True

# Held: commands of a watched client and their answers, kept beside the application for a moment (`adaptcache/redis/listener.py`).
#
# Between two calls of the kernel's a line of Python costs ten times what it costs in a loop, so keeping is one call of C.

cdef enum:
    KEPT = 0                # and nothing is to be done
    FIRST_KEPT = 1          # it had been empty: somebody should come and look
    LOOK = 2                # it should be looked at now

@cython.final
cdef class Held:
    """Commands, answers and times, in the order in which they came.

    most    so many are to be looked at
    large   so many bytes (or characters) in a value are to be looked at at once, and so is a value that may change
    """
    cdef list ones
    cdef readonly Py_ssize_t most, large
    cdef public bint at_once        # look at each

    def __cinit__(self, Py_ssize_t most, Py_ssize_t large):
        self.most = most
        self.large = large
        self.ones = []

    def keep(self, tuple args not None, reply, at):
        """Keep a command, its answer and when it was sent. 2: `take` them now; 1: the first since `take`; 0 else."""
        # Made first: the collector may run here, and a finalizer may take what is held.
        cdef tuple one = (args, reply, at)
        self.ones.append(one)
        cdef Py_ssize_t n = PyList_GET_SIZE(self.ones)
        if self.at_once or n >= self.most or not self._stays(reply):
            return LOOK
        if PyTuple_GET_SIZE(args) > 2 and not self._stays(<object>PyTuple_GET_ITEM(args, 2)):
            return LOOK
        return FIRST_KEPT if n == 1 else KEPT

    cdef inline bint _stays(self, value):
        """Small, and nobody can change it."""
        if type(value) is bytes:
            return PyBytes_GET_SIZE(value) < self.large
        if type(value) is str:
            return PyUnicode_GET_LENGTH(value) < self.large
        return value is None or type(value) is int or type(value) is float or type(value) is bool

    def take(self):
        """What is held, as a list of (command, answer, time); it is held no longer."""
        ones = self.ones
        self.ones = []
        return ones

    def __len__(self):
        return PyList_GET_SIZE(self.ones)

    def __iter__(self):
        return iter(self.ones[:])


def outside(held, command, replies, uint64_t mask, number, dict kinds, Py_ssize_t draw):
    """Of many commands those that must be noted, and what is to be counted of the others.

    held, command   `command(one)` is the tuple of one of `held`
    replies         their answers
    number, mask    a key is outside when its number has one of the mask's bits
    kinds           of commands about one key, args[1]. 0: no read; 1: a read that found something when its answer is not None; 2: when
                    its answer is true; 3: the same, and else it says nothing
    draw            which hit, and which miss, is named

    Gives ([(one of `held`, its answer)], hits, misses, key of that hit or None, key of that miss or None).
    """
    cdef list within = []
    cdef Py_ssize_t hits = 0, misses = 0
    cdef uint64_t bits
    cdef bint by_hash = number is hash
    cdef int kind
    cdef PyObject* found
    cdef tuple args
    drawn_hit = drawn_miss = None
    for one, reply in zip(held, replies):
        args = command(one)
        if PyTuple_GET_SIZE(args) > 1:
            name, key = <object>PyTuple_GET_ITEM(args, 0), <object>PyTuple_GET_ITEM(args, 1)
            # Other keys than these may be spelled otherwise for the same bytes, and other names stand for who knows what.
            if type(name) is str and (type(key) is bytes or (type(key) is str and PyUnicode_IS_ASCII(key))):
                bits = <uint64_t>PyObject_Hash(key) if by_hash else <uint64_t>number(key)
                found = PyDict_GetItemWithError(kinds, name) if bits & mask else NULL
                if found != NULL:
                    kind = <object>found
                    if kind == 0:
                        pass
                    elif reply is not None and (kind == 1 or reply):
                        hits += 1
                        if hits == draw:
                            drawn_hit = key
                    elif kind != 3:
                        misses += 1
                        if misses == draw:
                            drawn_miss = key
                    continue
        within.append((one, reply))
    return within, hits, misses, drawn_hit, drawn_miss

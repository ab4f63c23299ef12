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
        self.ones.append((args, reply, at))
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

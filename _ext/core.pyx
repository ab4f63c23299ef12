# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled core of adaptcache: the parts that touch Python objects.

store.pxi    Store, the cache itself: keys, values, and their removal
args.pxi     the arguments of a call as a key, without making it
call.pxi     Call, a decorated function over a Store
lru_call.pxi LruCall, the same with the keys and the manners of functools.lru_cache
compat.pxi   Classic, a Store with cachetools' manners
copying.pxi  entries on their way into a copy or a pickle
brain.pxi    Brain, the learner's handle on an engine: labels out, models in
state.pxi    what of an engine outlives a process, as bytes with their layout
replay.pxi   the simulator's loops over the same policies and the same expiry
stream.pxi   the same over hashes, for what is longer than memory
log.pxi      decisions on their way to a log
taping.pxi   what a Store was asked, on its way to a recording
held.pxi     Held, commands of a watched client until they are looked at
The mechanism lies in the .pxd files beside this one; none of them knows about Python.
"""
import logging
from os import urandom

import numpy as np

cimport cython

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport Py_EQ, Py_TYPE, PyObject, PyObject_Hash, PyObject_RichCompareBool
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport (PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New,
                            PyTuple_SET_ITEM)
from cpython.unicode cimport PyUnicode_GET_LENGTH
from libc.math cimport INFINITY, exp, expm1, isfinite, isnan, log
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from arena cimport Arena, NIL, Slot, arena_free, arena_give, arena_init, arena_reserve, arena_take
from belady cimport (Belady, belady_free, belady_hit, belady_init, belady_insert, belady_refuses, belady_remove, belady_victim)
from attic cimport (Memoir, REMEMBER, attic_bytes, attic_drop, attic_find, attic_put, attic_sound, memoir, memoir_cells,
                    memoir_idle, memoir_over, memoir_record)
from bins cimport FIRST, NB, bin_of, edge
from engine cimport (CODES, COUNTS, Coded, EXAMPLES, Engine, GAPS, HAZARD, LABELS, MAJORITY, MULTIPLE, NAMESPACES,
                     NamespaceState, STATIC, STATICS, TURNS, USER, USERS, Tracker, _engine_take, _engine_thin, code_of,
                     engine_alarm, engine_cost, engine_distribution, engine_find, engine_follows, engine_free, engine_free_tree,
                     engine_init, engine_namespace_row, engine_prior, engine_weights, mix64, user_ttl)
from expiry cimport (BY_CEILING, BY_FRESHNESS, ENTRY, MOST_SELDOM, Expiry, expiry_bank, expiry_banks, expiry_forgive, expiry_in_flight, FIXED,
                     expiry_note_gone, expiry_note_written, expiry_nth_bank, expiry_portrait, expiry_refused, IDLE, LEARNED, Life,
                     NEVER, expiry_absent, expiry_begin, expiry_drain, expiry_due, expiry_end, expiry_free, expiry_fresh,
                     expiry_gone, expiry_hit, expiry_init, expiry_learn_fresh, expiry_miss, expiry_next, expiry_parts, expiry_renew,
                     expiry_ceilings, expiry_due_at, expiry_threaded, expiry_reserve, expiry_review, expiry_valid, later,
                     life_ceiling, life_floor, life_fresh, life_window, _expiry_detach, _expiry_set)
from flat cimport FEATURES, Fork, GROUPS, LEAVES, Line, Rule, Tree, TreeNode, rule_free, rule_seconds
from fresh cimport (AUDIT, CLASSES, GROUPS_, RATES, REFRESH, RISKS, SERVE, Fresh, Fresher, Prior, fresh_bias, fresh_find, fresh_read,
                    fresh_refused, fresh_sent, fresh_share, fresh_sound, fresh_stale, fresh_take)
from guard cimport Guard, guard_credit, guard_expire, guard_forgive, guard_forgive_all
from hazard cimport Cell, HAZARDS, KeyCell, WINDOW as KEY_BINS
from hedge cimport EXPERTS, Hedge, hedge_close
from journal cimport (Decision, Journal, OUT_DELETED, OUT_OPEN, journal_finish_all, journal_free, journal_give,
                      journal_init, journal_samples, journal_sweep)
from stack cimport BUCKETS, CHAIN_TERMS, ROWS, SIDE_LIMIT, SIDES, SPAN, STAGES, Side, Stack, TERMS
from objects cimport AC_ITEM, AC_PREFETCH, DEPTH, ac_hash, ac_lengthen, ac_put, ac_same
from policy cimport Policy, policy_weight
from probes cimport (AC_EVICT, AC_EXPIRE, AC_GUARD_TRIPPED, AC_HIT, AC_INSERT, AC_MISS, AC_MODEL_PUBLISHED,
                     AC_PREMATURE)
from ring cimport APP, EVICTED, REMOVED, Ring, Touch, ring_free, ring_init
from tape cimport (NOTE_CLEAR, NOTE_DELETE, NOTE_HIT, NOTE_LOADED, NOTE_MISS, NOTE_SET, Note, Tape, siphash, tape_free, tape_init,
                   tape_note)
from table cimport (Table, TableCell, table_first, table_free, table_init, table_insert, table_next, table_remove,
                    table_reserve, table_roomy, table_tag)
from record cimport Record, octave
from turns cimport Turns, turns_free, turns_join, turns_leave, turns_reserve, turns_sound
from wheel cimport Timer, wheel_schedule, wheel_sound
cimport arc
cimport fifo
cimport gdsf
cimport lfu
cimport lirs
cimport lru
cimport s3fifo
cimport sieve
cimport slru
cimport adaptive
cimport wtinylfu

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*) noexcept
    int CLOCK_MONOTONIC_COARSE

cdef extern from *:
    """
    #ifndef ADAPTCACHE_CHECK
    #define ADAPTCACHE_CHECK 0
    #endif
    """
    const int ADAPTCACHE_CHECK      # each operation of a Store ends with `_check()`; see setup.py

_log = logging.getLogger("adaptcache")
CHECKED = bool(ADAPTCACHE_CHECK)

POLICIES = ("fifo", "lru", "slru", "lfu", "sieve", "s3fifo", "arc", "lirs", "wtinylfu", "gdsf", "adaptive")

cdef uint64_t _salt = 0

def policy_salt(salt=None):
    """A number for the next policy's salt: drawn once a process, then counted on. Tests and simulations set it."""
    global _salt
    if salt is not None:
        _salt = <uint64_t>(salt & 0xFFFFFFFFFFFFFFFF)
    return _salt

policy_salt(int.from_bytes(urandom(8), "little"))

cdef int bind_policy(Policy* p, object name, double capacity, object salt=None) except -1:
    """Make `p` the policy of that name. It is freed with `free_policy`."""
    global _salt
    cdef int bound
    if not isinstance(name, str):
        raise TypeError(f"policy: expected one of {', '.join(POLICIES)}, got {type(name).__name__}")
    if name not in POLICIES:
        raise ValueError(f"policy: unknown policy {name!r}; known are {', '.join(POLICIES)}")
    memset(p, 0, sizeof(Policy))
    p.capacity = capacity
    p.cost = p.promise = -1
    if salt is None:
        _salt = mix64(_salt + 1)
        p.salt = _salt
    else:
        p.salt = <uint64_t>(salt & 0xFFFFFFFFFFFFFFFF)
    if name == "fifo":
        bound = fifo.bind(p)
    elif name == "lru":
        bound = lru.bind(p)
    elif name == "slru":
        bound = slru.bind(p)
    elif name == "lfu":
        bound = lfu.bind(p)
    elif name == "s3fifo":
        bound = s3fifo.bind(p)
    elif name == "lirs":
        bound = lirs.bind(p)
    elif name == "gdsf":
        bound = gdsf.bind(p)
    elif name == "arc":
        bound = arc.bind(p)
    elif name == "wtinylfu":
        bound = wtinylfu.bind(p)
    elif name == "adaptive":
        bound = adaptive.bind(p)
    else:
        bound = sieve.bind(p)
    if bound < 0:
        free_policy(p)
        raise MemoryError
    return 0

cdef inline void free_policy(Policy* p) noexcept nogil:
    if p.free is not NULL:
        p.free(p)
    p.own = NULL
    p.free = NULL

cdef object policy_ways(Policy* p):
    """name -> requests so far, of a policy that has several ways; None of any other."""
    cdef uint64_t requests = 0
    cdef int which = 0
    cdef const char* name
    if p.way is NULL:
        return None
    ways = {}
    while True:
        name = p.way(p, which, &requests)
        if name is NULL:
            return ways
        ways[name.decode()] = requests
        which += 1

cdef inline int64_t coarse_now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec

cdef inline int64_t to_ns(double seconds) noexcept nogil:
    """Seconds to nanoseconds, held at the ends of what int64 can say (292 years)."""
    if seconds >= 9.2e9:
        return INT64_MAX
    if seconds <= -9.2e9:
        return -INT64_MAX
    # Whole seconds and the rest apart: the product of a large float would lose digits.
    cdef int64_t whole = <int64_t>seconds
    cdef double rest = (seconds - <double>whole) * 1e9
    return whole * 1000000000 + <int64_t>(rest + 0.5 if rest >= 0 else rest - 0.5)

cdef inline double to_seconds(int64_t ns) noexcept nogil:
    if ns >= INT64_MAX:
        return INFINITY
    return <double>(ns // 1000000000) + <double>(ns % 1000000000) / 1e9

def monotonic():
    """Seconds of the coarse monotonic clock, the default timer."""
    return to_seconds(coarse_now())

include "log.pxi"
include "taping.pxi"
include "state.pxi"
include "brain.pxi"
include "store.pxi"
include "args.pxi"
include "call.pxi"
include "lru_call.pxi"
include "copying.pxi"
include "compat.pxi"
include "replay.pxi"
include "stream.pxi"
include "held.pxi"

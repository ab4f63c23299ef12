/* USDT probes. Without <sys/sdt.h>, or without ADAPTCACHE_USDT, they compile to nothing. */
#ifndef ADAPTCACHE_PROBES_H
#define ADAPTCACHE_PROBES_H
#if defined(ADAPTCACHE_USDT) && defined(__has_include)
#  if __has_include(<sys/sdt.h>)
#    include <sys/sdt.h>
#    define AC_HIT(hash) DTRACE_PROBE1(adaptcache, hit, hash)
#    define AC_MISS(hash) DTRACE_PROBE1(adaptcache, miss, hash)
#    define AC_INSERT(hash) DTRACE_PROBE1(adaptcache, insert, hash)
#    define AC_EVICT(hash) DTRACE_PROBE1(adaptcache, evict, hash)
#    define AC_EXPIRE(hash, at) DTRACE_PROBE2(adaptcache, expire, hash, at)
#    define AC_PREMATURE(hash) DTRACE_PROBE1(adaptcache, premature, hash)
#    define AC_MODEL_PUBLISHED(n) DTRACE_PROBE1(adaptcache, model_published, n)
#    define AC_GUARD_TRIPPED(n) DTRACE_PROBE1(adaptcache, guard_tripped, n)
#  endif
#endif
#ifndef AC_HIT
#  define AC_HIT(hash) ((void)(hash))
#  define AC_MISS(hash) ((void)(hash))
#  define AC_INSERT(hash) ((void)(hash))
#  define AC_EVICT(hash) ((void)(hash))
#  define AC_EXPIRE(hash, at) ((void)(hash), (void)(at))
#  define AC_PREMATURE(hash) ((void)(hash))
#  define AC_MODEL_PUBLISHED(n) ((void)(n))
#  define AC_GUARD_TRIPPED(n) ((void)(n))
#endif
#endif

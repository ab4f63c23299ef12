/* The 128-bit product of two numbers, as a hash of both; and numbers that nobody outside can guess. */
#ifndef ADAPTCACHE_MIXING_H
#define ADAPTCACHE_MIXING_H
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#include <sys/random.h>

static inline void ac_product(uint64_t a, uint64_t b, uint64_t *low, uint64_t *high) {
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)a * b;
    *low = (uint64_t)product;
    *high = (uint64_t)(product >> 64);
#else
    uint64_t least = (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
    uint64_t one = (a >> 32) * (b & 0xFFFFFFFF), other = (a & 0xFFFFFFFF) * (b >> 32);
    uint64_t middle = (least >> 32) + (one & 0xFFFFFFFF) + (other & 0xFFFFFFFF);
    *low = middle << 32 | (least & 0xFFFFFFFF);
    *high = (a >> 32) * (b >> 32) + (one >> 32) + (other >> 32) + (middle >> 32);
#endif
}

static inline uint64_t ac_fold(uint64_t a, uint64_t b) {
    uint64_t low, high;
    ac_product(a, b, &low, &high);
    return low ^ high;
}

/* The middle of the product, where each bit depends on nearly all bits of both factors; its lowest bits do not. */
static inline uint32_t ac_middle(uint64_t a, uint64_t b) {
    uint64_t low, high;
    ac_product(a, b, &low, &high);
    return (uint32_t)(low >> 32 ^ high);
}

/* The system is asked once a process, for a secret; then it is counted. A system that has no entropy to give is no
   reason to refuse a cache: the clock and an address then do. */
static inline uint64_t ac_random(void) {
    static uint64_t secret[2], turn;
    uint64_t n = __atomic_add_fetch(&turn, 1, __ATOMIC_RELAXED);
    if (secret[1] == 0 && getentropy(secret, sizeof secret) != 0) {
        secret[0] = (uint64_t)time(NULL) ^ (uint64_t)clock() << 32;
        secret[1] = (uint64_t)(uintptr_t)&secret ^ 0x9E3779B97F4A7C15u;
    }
    return ac_fold(secret[0] ^ n, secret[1] ^ n * 0x9E3779B97F4A7C15u);
}
#endif

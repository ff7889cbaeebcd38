#pragma once
/* Lists of the best so far, for a group of tokens side by side, one in each lane of a wide vector.
 *
 * A score and its index are one integer of 64 bits, so that lists are kept by maxima and minima alone, eight candidates at
 * a time, by the same instructions whatever the scores are.
 */
#include "native.h"

enum { BLOCK = 8, GROUP = LANES / 2 }; /* candidates at a time, and tokens */
typedef float half_vec __attribute__((vector_size(4 * GROUP), aligned(4), may_alias));
typedef int32_t half_ivec __attribute__((vector_size(4 * GROUP), aligned(4), may_alias));
typedef int64_t wide __attribute__((vector_size(8 * GROUP), aligned(8), may_alias));
#define NOTHING ((wide)((wide){0} + INT64_MIN))

/* Floats as integers of the same order, NaN on top, in vectors of either length; and back. */
#define RANK(type, x)                                                                                                 \
    ({                                                                                                                \
        type bits_ = (((x) == (x)) & (type)(x)) | (~((x) == (x)) & 0x7FC00000);                                       \
        bits_ ^ ((bits_ >> 31) & 0x7FFFFFFF);                                                                         \
    })

INLINE half_vec value_of(wide x)
{
    half_ivec rank = __builtin_convertvector(x >> 32, half_ivec);
    return (half_vec)(rank ^ ((rank >> 31) & 0x7FFFFFFF));
}

/* Of equal ranks the lower index is the larger integer. */
INLINE wide with_index(half_ivec rank, uint32_t index)
{
    return __builtin_convertvector(rank, wide) << 32 | (int64_t)(uint32_t)~index;
}

INLINE uint32_t index_of(const wide *x, int lane)
{
    return ~(uint32_t)((const int64_t *)x)[lane];
}

INLINE half_ivec half(const ivec *x, int g)
{
    return ((const half_ivec *)x)[g];
}

INLINE void put(wide *x, int lane, int64_t value)
{
    ((int64_t *)x)[lane] = value;
}

/* What compilers do not find by themselves in the general form. */
INLINE wide larger(wide a, wide b)
{
#ifdef __AVX512F__
    return (wide)_mm512_max_epi64((__m512i)a, (__m512i)b);
#else
    return ((a > b) & a) | (~(a > b) & b);
#endif
}

INLINE wide smaller(wide a, wide b)
{
#ifdef __AVX512F__
    return (wide)_mm512_min_epi64((__m512i)a, (__m512i)b);
#else
    return ((a > b) & b) | (~(a > b) & a);
#endif
}

INLINE ivec larger_rank(ivec a, ivec b)
{
#ifdef __AVX512F__
    return (ivec)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
    return ((a > b) & a) | (~(a > b) & b);
#endif
}

INLINE int any_larger(wide a, wide b)
{
#ifdef __AVX512F__
    return _mm512_cmpgt_epi64_mask((__m512i)a, (__m512i)b) != 0;
#else
    int64_t found = 0;
    wide more = a > b;
    for (int i = 0; i < GROUP; i++)
        found |= more[i];
    return found != 0;
#endif
}

INLINE void sort_two(wide *a, wide *b)
{
    wide more = larger(*a, *b);
    *b = smaller(*a, *b);
    *a = more;
}

/* Eight, best first, by the shortest network (Knuth, volume 3, section 5.3.4). */
INLINE void sort_block(wide *x)
{
    static const char pairs[19][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 1}, {2, 3},
                                      {4, 5}, {6, 7}, {2, 4}, {3, 5}, {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
    #pragma GCC unroll 19
    for (int i = 0; i < 19; i++)
        sort_two(&x[(int)pairs[i][0]], &x[(int)pairs[i][1]]);
}

/* Eight that rise and then fall, or fall and then rise, best first. */
INLINE void sort_bitonic(wide *x)
{
    #pragma GCC unroll 3
    for (int distance = BLOCK / 2; distance; distance /= 2)
        #pragma GCC unroll 8
        for (int i = 0; i < BLOCK; i++)
            if (!(i & distance))
                sort_two(&x[i], &x[i + distance]);
}

/* Takes a block of candidates, in any order, into a list of the best so far, best first; its length in blocks. */
INLINE void take(const wide *candidates, wide *list, int blocks)
{
    wide best[BLOCK], most = candidates[0];
    for (int i = 1; i < BLOCK; i++)
        most = larger(most, candidates[i]);
    if (!any_larger(most, list[BLOCK * blocks - 1]))
        return;
    memcpy(best, candidates, sizeof best);
    sort_block(best);
    for (int b = blocks - 1; b >= 0; b--) { /* from the end: the better ones go on, the others stay a block below */
        wide rest[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            rest[i] = list[BLOCK * b + BLOCK - 1 - i];
        for (int i = 0; i < BLOCK; i++)
            sort_two(&best[i], &rest[i]);
        sort_bitonic(best);
        if (b + 1 < blocks) {
            sort_bitonic(rest);
            memcpy(list + BLOCK * (b + 1), rest, sizeof rest);
        }
    }
    memcpy(list, best, sizeof best);
}

/* The best of `count` candidates, in any order; they have room up to a whole block. */
INLINE void best_of(wide *candidates, int count, wide *list, int blocks)
{
    for (int p = 0; p < BLOCK * blocks; p++)
        list[p] = NOTHING;
    for (int p = count; p % BLOCK; p++)
        candidates[p] = NOTHING;
    for (int p = 0; p < count; p += BLOCK)
        take(candidates + p, list, blocks);
}

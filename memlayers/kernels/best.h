#pragma once
/* Candidates: a rank alone, 32 bits, or with the index that breaks ties, 64. Lists of the best of either: network.h. */
#include "native.h"

enum { BLOCK = 8, GROUP = LANES / 2 }; /* candidates at a time, and tokens whose candidates of 64 bits fill a vector */
typedef float half_vec __attribute__((vector_size(4 * GROUP), aligned(4), may_alias));
typedef int32_t half_ivec __attribute__((vector_size(4 * GROUP), aligned(4), may_alias));
typedef int64_t wide __attribute__((vector_size(8 * GROUP), aligned(8), may_alias));

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
INLINE int64_t with_index(int32_t rank, uint32_t index)
{
    return (int64_t)rank << 32 | (uint32_t)~index;
}

INLINE wide all_with_index(half_ivec rank, uint32_t index)
{
    return __builtin_convertvector(rank, wide) << 32 | (int64_t)(uint32_t)~index;
}

INLINE uint32_t index_of(const wide *x, int lane)
{
    return ~(uint32_t)((const int64_t *)x)[lane];
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define T wide
#define BITS 64
#define LEAST INT64_MIN
#define NAME(x) wide_##x
#include "network.h"

#define T ivec
#define BITS 32
#define LEAST INT32_MIN
#define NAME(x) rank_##x
#include "network.h"

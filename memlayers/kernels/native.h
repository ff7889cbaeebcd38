#pragma once
/* What the kernels share. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* Vectors as wide as the processor's: wider ones are broken down badly. */
#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX2__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load_vec(const float *from)
{
    return *(const vec *)from;
}

INLINE void store_vec(float *to, vec x)
{
    *(vec *)to = x;
}

/* Eight floats whatever the machine: left alone, compilers turn rows this short into scalar code. */
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

INLINE float sum_eight(eight x)
{
    four s = *(const four *)&x + *((const four *)&x + 1);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Sixteen partial sums, in as many vectors as that takes, so that the sum has the same order whatever a vector's width. */
enum { PARTS = 16 / LANES };

INLINE float sum_parts(const vec *parts)
{
    return sum_eight(*(const eight *)parts + *((const eight *)parts + 1));
}

/* to += by * from */
INLINE void add_scaled(float *restrict to, const float *restrict from, float by, int c)
{
    int i = 0;
    for (; i + 8 <= c; i += 8)
        *(eight *)(to + i) += by * *(const eight *)(from + i);
    for (; i < c; i++)
        to[i] += by * from[i];
}

enum { AHEAD = 16 }; /* rows that are fetched before they are needed: memory takes as long as a few rows take */

/* A table is float32, or bfloat16 where `bf16` says so. */
INLINE float widen(const void *table, int64_t i, int bf16)
{
    if (!bf16)
        return ((const float *)table)[i];
    union { uint32_t bits; float value; } x = {(uint32_t)((const uint16_t *)table)[i] << 16};
    return x.value;
}

/* The d numbers of a table that begin `from` its start: its own, or widened to `room`. */
INLINE const float *as_floats(const void *table, int64_t from, int bf16, int d, float *room)
{
    if (!bf16)
        return (const float *)table + from;
    for (int i = 0; i < d; i++)
        room[i] = widen(table, from + i, 1);
    return room;
}

/* Rounds to nearest, of ties to even, as torch does. */
INLINE uint16_t rounded(float value)
{
    union { float value; uint32_t bits; } x = {value};
    return value != value ? 0x7FC0 : (uint16_t)((x.bits + 0x7FFF + ((x.bits >> 16) & 1)) >> 16);
}

INLINE void narrow(void *table, int64_t i, int bf16, float value)
{
    if (bf16)
        ((uint16_t *)table)[i] = rounded(value);
    else
        ((float *)table)[i] = value;
}

INLINE float mean_square(const float *x, int d)
{
    vec parts[PARTS] = {{0}};
    int i = 0;
    for (; i + 16 <= d; i += 16)
        for (int p = 0; p < PARTS; p++)
            parts[p] += load_vec(x + i + p * LANES) * load_vec(x + i + p * LANES);
    float sum = sum_parts(parts);
    for (; i < d; i++)
        sum += x[i] * x[i];
    return sum / d;
}

/* Row-wise Adagrad on the row at `at` with gradient g, and its sum of mean squares; without a sum, gradient descent. */
INLINE void adagrad_row(void *restrict values, int64_t at, int bf16, int d, float *restrict total,
                        const float *restrict g, double rate, double eps)
{
    float scale = rate;
    if (total)
        scale = rate / (sqrtf(*total += mean_square(g, d)) + eps);
    for (int i = 0; i < d; i++)
        narrow(values, at + i, bf16, widen(values, at + i, bf16) - scale * g[i]);
}

/* A row into L1 (level 3, which has to be a literal) or L2 (2). */
#define FETCH(table, row, d, bf16, level)                                                                             \
    for (int64_t byte = 0, size = (d) * ((bf16) ? 2 : 4); byte < size; byte += 64)                                    \
        __builtin_prefetch((const char *)(table) + (row) * size + byte, 0, level)

/* A row that is needed soon. */
INLINE void fetch(const void *table, int64_t row, int d, int bf16)
{
    FETCH(table, row, d, bf16, 3);
}

/* A row needed AHEAD rows later: L1 is too small for so many, and allows too few outstanding misses. */
INLINE void fetch_early(const void *table, int64_t row, int d, int bf16)
{
    FETCH(table, row, d, bf16, 2);
}

/* Calls with a known width, which lets the compiler keep a row in registers. It stands inside of parallel loops: what
 * such a loop calls sees no constants from outside of it. */
#define BY_WIDTH(d, call)                                                                                             \
    switch (d) {                                                                                                      \
    case 32: call(32); break;                                                                                         \
    case 64: call(64); break;                                                                                         \
    case 128: call(128); break;                                                                                       \
    case 256: call(256); break;                                                                                       \
    default: call(d);                                                                                                 \
    }

#define BY_HALF_KEY(c, call)                                                                                          \
    switch (c) {                                                                                                      \
    case 8: call(8); break;                                                                                           \
    case 16: call(16); break;                                                                                         \
    case 32: call(32); break;                                                                                         \
    case 64: call(64); break;                                                                                         \
    default: call(c);                                                                                                 \
    }

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

INLINE ivec select_vec(ivec where, ivec yes, ivec no)
{
    return (where & yes) | (~where & no);
}

/* What compilers do not find by themselves in the general form. */
INLINE ivec largest(ivec a, ivec b)
{
#ifdef __AVX512F__
    return (ivec)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
    return select_vec(a > b, a, b);
#endif
}

INLINE ivec least(ivec a, ivec b)
{
#ifdef __AVX512F__
    return (ivec)_mm512_min_epi32((__m512i)a, (__m512i)b);
#else
    return select_vec(a > b, b, a);
#endif
}

INLINE int any(ivec where)
{
#ifdef __AVX512F__
    return _mm512_test_epi32_mask((__m512i)where, (__m512i)where) != 0;
#else
    int found = 0;
    for (int i = 0; i < LANES; i++)
        found |= where[i];
    return found;
#endif
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

/* Rounds to nearest, of ties to even, as torch does. */
INLINE void narrow(void *table, int64_t i, int bf16, float value)
{
    if (!bf16) {
        ((float *)table)[i] = value;
        return;
    }
    union { float value; uint32_t bits; } x = {value};
    ((uint16_t *)table)[i] = value != value ? 0x7FC0 : (uint16_t)((x.bits + 0x7FFF + ((x.bits >> 16) & 1)) >> 16);
}

INLINE void fetch(const void *table, int64_t row, int d, int bf16)
{
    const char *from = (const char *)table + row * d * (bf16 ? 2 : 4);
    for (int byte = 0; byte < d * (bf16 ? 2 : 4); byte += 64)
        __builtin_prefetch(from + byte);
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

#pragma once
/* Norms of half queries and keys: rows so short, 8 numbers and more, that passes over memory cost more than what is
 * computed. So the search norms a row where it reads it, and backward where it writes its gradient. */
#include "native.h"

INLINE float dot(const float *a, const float *b, int c)
{
    eight sums = {0};
    int i = 0;
    for (; i + 8 <= c; i += 8)
        sums += *(const eight *)(a + i) * *(const eight *)(b + i);
    float sum = sum_eight(sums);
    for (; i < c; i++)
        sum += a[i] * b[i];
    return sum;
}

INLINE float inverse_of(const float *x, int c, float eps)
{
    return 1 / sqrtf(dot(x, x, c) / c + eps);
}

/* y = x * inverse * gain, where inverse is one over the root mean square; without a gain, x itself. */
INLINE void norm_row(const float *x, const float *gain, int c, float inverse, float *y)
{
    if (!gain) {
        memcpy(y, x, sizeof(float) * c);
        return;
    }
    int i = 0;
    for (; i + 8 <= c; i += 8)
        *(eight *)(y + i) = *(const eight *)(x + i) * inverse * *(const eight *)(gain + i);
    for (; i < c; i++)
        y[i] = x[i] * inverse * gain[i];
}

/* From the gradient of y that of x, in its place, and what the row adds to that of the gain. */
INLINE void norm_row_back(float *restrict grad, const float *x, const float *gain, int c, float inverse,
                          float *restrict grad_gain)
{
    float scaled[c];
    int i = 0;
    for (; i + 8 <= c; i += 8) {
        eight g = *(const eight *)(grad + i) * inverse;
        *(eight *)(grad_gain + i) += g * *(const eight *)(x + i);
        *(eight *)(scaled + i) = g * *(const eight *)(gain + i);
    }
    for (; i < c; i++) {
        grad_gain[i] += grad[i] * inverse * x[i];
        scaled[i] = grad[i] * inverse * gain[i];
    }
    float along = -dot(scaled, x, c) * inverse * inverse / c;
    memcpy(grad, scaled, sizeof scaled);
    add_scaled(grad, x, along, c);
}

/* Rows (LANES, c), each at its own place, to columns (c, LANES). */
INLINE void turn(const float *const *rows, int c, vec *columns)
{
    int j = 0;
#ifdef __AVX512F__
    for (; j + LANES <= c; j += LANES) {
        vec x[LANES];
        for (int i = 0; i < LANES; i++)
            x[i] = load_vec(rows[i] + j);
        #pragma GCC unroll 4
        for (int by = 1; by < LANES; by *= 2) { /* squares of 2 * by: their upper right and lower left change places */
            ivec left, right;
            for (int l = 0; l < LANES; l++) {
                left[l] = l & by ? l - by + LANES : l;
                right[l] = l & by ? l + LANES : l + by;
            }
            #pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                if (!(i & by)) {
                    __m512 a = (__m512)x[i], b = (__m512)x[i + by];
                    x[i] = (vec)_mm512_permutex2var_ps(a, (__m512i)left, b);
                    x[i + by] = (vec)_mm512_permutex2var_ps(a, (__m512i)right, b);
                }
        }
        memcpy(columns + j, x, sizeof x);
    }
#endif
    for (; j < c; j++)
        for (int i = 0; i < LANES; i++)
            columns[j][i] = rows[i][j];
}

/* norm_row of LANES rows that were turned, with the same sums. */
INLINE void norm_columns(vec *x, const float *gain, int c, float eps, float *inverses)
{
    vec s[8] = {{0}};
    int j = 0;
    for (; j + 8 <= c; j += 8)
        for (int m = 0; m < 8; m++)
            s[m] += x[j + m] * x[j + m];
    vec mean = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])), inverse;
    for (; j < c; j++)
        mean += x[j] * x[j];
    mean = mean / (float)c + eps;
    for (int i = 0; i < LANES; i++)
        inverse[i] = 1 / sqrtf(mean[i]);
    for (j = 0; j < c; j++)
        x[j] = x[j] * inverse * gain[j];
    store_vec(inverses, inverse);
}

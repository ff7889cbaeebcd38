/* What a lookup does row by row: the norm of a half query or key, and the softmax of a head's scores. Their rows are so
 * short, 8 numbers and more, that passes over memory cost more than what is computed.
 */
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

/* y = x * inverse * gain, where inverse is one over the root mean square; x and y (rows, c), inverse (rows). */
INLINE void norm_row(const float *x, const float *gain, int c, double eps, float *y, float *inverse)
{
    int i = 0;
    float by = *inverse = 1 / sqrtf(dot(x, x, c) / c + eps);
    for (; i + 8 <= c; i += 8)
        *(eight *)(y + i) = *(const eight *)(x + i) * by * *(const eight *)(gain + i);
    for (; i < c; i++)
        y[i] = x[i] * by * gain[i];
}

/* The gradient of x, and what the row adds to that of the gain. */
INLINE void norm_row_back(const float *grad, const float *x, const float *gain, int c, float by, float *grad_x,
                          float *grad_gain)
{
    float scaled[c];
    int i = 0;
    for (; i + 8 <= c; i += 8) {
        eight g = *(const eight *)(grad + i) * by;
        *(eight *)(grad_gain + i) += g * *(const eight *)(x + i);
        *(eight *)(scaled + i) = g * *(const eight *)(gain + i);
    }
    for (; i < c; i++) {
        grad_gain[i] += grad[i] * by * x[i];
        scaled[i] = grad[i] * by * gain[i];
    }
    float along = -dot(scaled, x, c) * by * by / c;
    memcpy(grad_x, scaled, sizeof scaled);
    add_scaled(grad_x, x, along, c);
}

void norm_forward(const float *x, const float *gain, int64_t rows, int c, double eps, float *y, float *inverse,
                  int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
#define CALL(c) norm_row(x + r * c, gain, c, eps, y + r * c, inverse + r)
        BY_HALF_KEY(c, CALL)
#undef CALL
    }
}

/* grad_gain (parts, c) starts at zero; a part is of `part` rows, so that sums do not depend on the threads. */
void norm_backward(const float *grad, const float *x, const float *gain, const float *inverse, int64_t rows, int c,
                   int64_t part, float *grad_x, float *grad_gain, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t first = 0; first < rows; first += part)
        for (int64_t r = first; r < rows && r < first + part; r++) {
#define CALL(c)                                                                                                       \
    norm_row_back(grad + r * c, x + r * c, gain, c, inverse[r], grad_x + r * c, grad_gain + first / part * c)
            BY_HALF_KEY(c, CALL)
#undef CALL
        }
}

/* Of rows of k weights that were softmaxes, and their gradients, the gradients of the scores. */
void softmax_backward(const float *grad, const float *weights, int64_t rows, int k, float *grad_scores, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        const float *g = grad + r * k, *w = weights + r * k;
        float mean = dot(g, w, k), *to = grad_scores + r * k;
        int i = 0;
        for (; i + 8 <= k; i += 8)
            *(eight *)(to + i) = *(const eight *)(w + i) * (*(const eight *)(g + i) - mean);
        for (; i < k; i++)
            to[i] = w[i] * (g[i] - mean);
    }
}

/* Updates of the rows that were read, in place: rows (u,) distinct, their gradients (u, d), state in float32. */
#include "native.h"

/* As torch computes them, with the coefficients rounded to float32 one by one. */
INLINE float mean_square(const void *grads, int64_t u, int d, int half)
{
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int i = 0; i < d; i++)
        sum += widen(grads, u * d + i, half) * widen(grads, u * d + i, half);
    return sum / d;
}

INLINE void adam_of(void *values, int half, int d, float *mean, float *square, const int64_t *rows, const void *grads,
                    int64_t found, int rowwise, float rate, float take1, float keep2, float take2, float correct,
                    float eps, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found) {
            fetch(values, rows[u + AHEAD], d, half);
            fetch(mean, rows[u + AHEAD], d, 0);
            fetch(square, rows[u + AHEAD], rowwise ? 1 : d, 0);
        }
        int64_t at = rows[u] * d;
        float *own = square + (rowwise ? rows[u] : at), scale = 0;
        if (rowwise) {
            *own = keep2 * *own + take2 * mean_square(grads, u, d, half);
            scale = rate / (sqrtf(*own * correct) + eps);
        }
        for (int i = 0; i < d; i++) {
            float g = widen(grads, u * d + i, half), m = mean[at + i];
            mean[at + i] = m += take1 * (g - m);
            if (!rowwise) {
                own[i] = keep2 * own[i] + take2 * g * g;
                scale = rate / (sqrtf(own[i] * correct) + eps);
            }
            narrow(values, at + i, half, widen(values, at + i, half) - m * scale);
        }
    }
}

void adam_rows(void *values, int half, int d, float *mean, float *square, const int64_t *rows, const void *grads,
               int64_t found, int rowwise, double rate, double beta1, double beta2, double correct, double eps,
               int threads)
{
#define CALL(half, d)                                                                                                 \
    if (rowwise)                                                                                                      \
        adam_of(values, half, d, mean, square, rows, grads, found, 1, rate, 1 - beta1, beta2, 1 - beta2, correct, eps, \
                threads);                                                                                             \
    else                                                                                                              \
        adam_of(values, half, d, mean, square, rows, grads, found, 0, rate, 1 - beta1, beta2, 1 - beta2, correct, eps, \
                threads)
    BY_SHAPE(half, d, CALL)
#undef CALL
}

/* total: one sum of mean squares a row; or none, for plain gradient descent. */
INLINE void descend(void *values, int half, int d, float *total, const int64_t *rows, const void *grads, int64_t found,
                    float rate, float eps, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found) {
            fetch(values, rows[u + AHEAD], d, half);
            if (total)
                fetch(total, rows[u + AHEAD], 1, 0);
        }
        float scale = rate;
        if (total)
            scale = rate / (sqrtf(total[rows[u]] += mean_square(grads, u, d, half)) + eps);
        for (int i = 0; i < d; i++) {
            int64_t at = rows[u] * d + i;
            narrow(values, at, half, widen(values, at, half) - scale * widen(grads, u * d + i, half));
        }
    }
}

void adagrad_rows(void *values, int half, int d, float *total, const int64_t *rows, const void *grads, int64_t found,
                  double rate, double eps, int threads)
{
#define CALL(half, d) descend(values, half, d, total, rows, grads, found, rate, eps, threads)
    BY_SHAPE(half, d, CALL)
#undef CALL
}

void sgd_rows(void *values, int half, int d, const int64_t *rows, const void *grads, int64_t found, double rate,
              int threads)
{
    adagrad_rows(values, half, d, NULL, rows, grads, found, rate, 0, threads);
}

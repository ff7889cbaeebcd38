/* Updates of the rows that were read, in place: rows (u,) distinct, their gradients (u, d), state in float32. */
#include "native.h"
#ifdef __linux__
#include <sys/mman.h>
#endif

/* What is subtracted from a row with gradient g, after its moments m and s have moved: s is one number if rowwise. */
INLINE void adam_change(const float *restrict g, float *restrict m, float *restrict s, int d, int rowwise, float rate,
                        float take1, float keep2, float take2, float correct, float eps, float *restrict change)
{
    for (int i = 0; i < d; i++)
        m[i] += take1 * (g[i] - m[i]);
    if (rowwise) {
        *s = keep2 * *s + take2 * mean_square(g, d);
        float scale = rate / (sqrtf(*s * correct) + eps);
        for (int i = 0; i < d; i++)
            change[i] = m[i] * scale;
    } else
        for (int i = 0; i < d; i++) {
            s[i] = keep2 * s[i] + take2 * g[i] * g[i];
            change[i] = rate * m[i] / (sqrtf(s[i] * correct) + eps);
        }
}

void adam_rows(void *values, int bf16, int d, float *mean, float *square, const int64_t *rows, const void *grads,
               int64_t found, int rowwise, double rate, double beta1, double beta2, double correct, double eps,
               int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found) {
            fetch_early(values, rows[u + AHEAD], d, bf16);
            fetch_early(mean, rows[u + AHEAD], d, 0);
            fetch_early(square, rows[u + AHEAD], rowwise ? 1 : d, 0);
        }
        int64_t at = rows[u] * d;
        float widened[d], change[d], *own = square + (rowwise ? rows[u] : at);
        const float *g = as_floats(grads, u * d, bf16, d, widened);
#define CALL(d)                                                                                                       \
    adam_change(g, mean + at, own, d, rowwise, rate, 1 - beta1, beta2, 1 - beta2, correct, eps, change)
        BY_WIDTH(d, CALL)
#undef CALL
        for (int i = 0; i < d; i++)
            narrow(values, at + i, bf16, widen(values, at + i, bf16) - change[i]);
    }
}

INLINE void widened_adagrad_row(void *restrict values, int64_t at, int bf16, int d, float *restrict total,
                                const void *restrict grads, int64_t from, double rate, double eps)
{
    float widened[d];
    adagrad_row(values, at, bf16, d, total, as_floats(grads, from, bf16, d, widened), rate, eps);
}

/* total: one sum a row; or none at all. */
void adagrad_rows(void *values, int bf16, int d, float *total, const int64_t *rows, const void *grads, int64_t found,
                  double rate, double eps, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found) {
            fetch_early(values, rows[u + AHEAD], d, bf16);
            if (total)
                fetch_early(total, rows[u + AHEAD], 1, 0);
        }
#define CALL(d)                                                                                                       \
    widened_adagrad_row(values, rows[u] * d, bf16, d, total ? total + rows[u] : NULL, grads, u * d, rate, eps)
        BY_WIDTH(d, CALL)
#undef CALL
    }
}

void sgd_rows(void *values, int bf16, int d, const int64_t *rows, const void *grads, int64_t found, double rate,
              int threads)
{
    adagrad_rows(values, bf16, d, NULL, rows, grads, found, rate, 0, threads);
}

/* Asks for pages of 2 MiB before the first touch: a table that is read at random misses the page tables less often. */
void huge_pages(void *start, int64_t bytes)
{
#ifdef MADV_HUGEPAGE
    uintptr_t page = 1 << 21, from = (uintptr_t)start;
    uintptr_t first = (from + page - 1) / page * page, end = (from + bytes) / page * page;
    if (end > first)
        madvise((void *)first, end - first, MADV_HUGEPAGE); /* advice: where it cannot be followed nothing is lost */
#else
    (void)start, (void)bytes;
#endif
}

/* The gradients of weighted reads: of the rows that were read, or at once their update, and of the weights. Letters as in
 * reads.c; order, rows and first are what sort_reads gives.
 */
#include "native.h"

enum { NEAR = 6 }; /* reads whose gradients are fetched before they are needed: they are in L2 */
enum { MOST = 256 }; /* numbers of a row that is kept in vectors, and these in registers as far as they go */

/* Where the gradient of a read's token is; that of one that comes NEAR after it is fetched. `left` reads are left. */
INLINE const float *upstream(const float *grad, int d, const uint64_t *order, int64_t left, int reads)
{
    fetch(grad, (uint32_t)order[NEAR < left ? NEAR : 0] / (uint32_t)reads, d, 0);
    return grad + (int64_t)((uint32_t)order[0] / (uint32_t)reads) * d;
}

/* Of one row: its gradient, the weighted sum of the gradients of its reads, to `sum`, and the gradients of their weights. */
INLINE void visit_vectors(const float *row, int d, const uint64_t *order, int64_t count, int64_t left, int reads,
                          const float *weights, const float *grad, float *grad_weights, float *sum)
{
    vec own[MOST / LANES], sums[MOST / LANES];
    #pragma GCC unroll 64
    for (int v = 0; v < d / LANES; v++)
        own[v] = load_vec(row + v * LANES), sums[v] = (vec){0};
    for (int64_t i = 0; i < count; i++) {
        const float *out = upstream(grad, d, order + i, left - i, reads);
        float weight = weights[(uint32_t)order[i]];
        vec parts[PARTS] = {{0}};
        #pragma GCC unroll 64
        for (int v = 0; v < d / LANES; v++) {
            vec x = load_vec(out + v * LANES);
            parts[v % PARTS] += x * own[v];
            sums[v] += weight * x;
        }
        grad_weights[(uint32_t)order[i]] = sum_parts(parts);
    }
    #pragma GCC unroll 64
    for (int v = 0; v < d / LANES; v++)
        store_vec(sum + v * LANES, sums[v]);
}

/* The same of any width, in an order that is the compiler's. */
INLINE void visit_numbers(const float *restrict row, int d, const uint64_t *order, int64_t count, int64_t left, int reads,
                          const float *weights, const float *grad, float *restrict grad_weights, float *restrict sum)
{
    memset(sum, 0, sizeof(float) * d);
    for (int64_t i = 0; i < count; i++) {
        const float *restrict out = upstream(grad, d, order + i, left - i, reads);
        float weight = weights[(uint32_t)order[i]], dot = 0;
        #pragma omp simd reduction(+ : dot)
        for (int j = 0; j < d; j++) {
            dot += out[j] * row[j];
            sum[j] += weight * out[j];
        }
        grad_weights[(uint32_t)order[i]] = dot;
    }
}

/* One of the two, of the row at `at`; its gradient is rounded as the table is. */
INLINE void visit_row(const void *values, int64_t at, int bf16, int d, const uint64_t *order, int64_t count, int64_t left,
                      int reads, const float *weights, const float *grad, float *grad_weights, float *sum)
{
    float widened[d];
    const float *row = as_floats(values, at, bf16, d, widened);
    if (d % 16 == 0 && d <= MOST)
        visit_vectors(row, d, order, count, left, reads, weights, grad, grad_weights, sum);
    else
        visit_numbers(row, d, order, count, left, reads, weights, grad, grad_weights, sum);
    for (int j = 0; bf16 && j < d; j++) {
        uint16_t narrowed = rounded(sum[j]);
        sum[j] = widen(&narrowed, 0, 1);
    }
}

/* Gradients of the rows that were read, to `to` of grad_rows. */
INLINE void give_row(const void *restrict values, int64_t at, int bf16, int d, const uint64_t *order, int64_t count,
                     int64_t left, int reads, const float *weights, const float *grad, float *restrict grad_weights,
                     void *restrict grad_rows, int64_t to)
{
    float sum[d];
    visit_row(values, at, bf16, d, order, count, left, reads, weights, grad, grad_weights, sum);
    for (int j = 0; j < d; j++)
        narrow(grad_rows, to + j, bf16, sum[j]);
}

void read_backward(const void *values, int bf16, int d, const uint64_t *order, const int64_t *rows,
                   const int64_t *first, int64_t found, int reads, const float *weights, const float *grad,
                   float *grad_weights, void *grad_rows, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found)
            fetch_early(values, rows[u + AHEAD], d, bf16);
#define CALL(d)                                                                                                       \
    give_row(values, rows[u] * d, bf16, d, order + first[u], first[u + 1] - first[u], first[found] - first[u], reads, \
             weights, grad, grad_weights, grad_rows, u * d)
        BY_WIDTH(d, CALL)
#undef CALL
    }
}

/* The same, but the rows themselves move, by row-wise Adagrad or, without totals, gradient descent. */
INLINE void move_row(void *restrict values, int64_t at, int bf16, int d, const uint64_t *order, int64_t count,
                     int64_t left, int reads, const float *weights, const float *grad, float *restrict grad_weights,
                     float *restrict total, double rate, double eps)
{
    float sum[d];
    visit_row(values, at, bf16, d, order, count, left, reads, weights, grad, grad_weights, sum);
    adagrad_row(values, at, bf16, d, total, sum, rate, eps);
}

void read_update(void *values, int bf16, int d, const uint64_t *order, const int64_t *rows, const int64_t *first,
                 int64_t found, int reads, const float *weights, const float *grad, float *grad_weights, float *total,
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
    move_row(values, rows[u] * d, bf16, d, order + first[u], first[u + 1] - first[u], first[found] - first[u], reads, \
             weights, grad, grad_weights, total ? total + rows[u] : NULL, rate, eps)
        BY_WIDTH(d, CALL)
#undef CALL
    }
}

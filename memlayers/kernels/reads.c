/* Weighted reads of rows of a table, and their gradients: values (num_slots, d), slots and weights (t, r).
 *
 * Sums are in float32 and in the order of the reads, on however many threads.
 */
#include "native.h"

INLINE void read_rows(const void *values, int half, int d, const int64_t *slots, const float *weights, int64_t tokens,
                      int reads, float *out, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t t = 0; t < tokens; t++) {
        float sum[d];
        memset(sum, 0, sizeof sum);
        for (int r = 0; r < reads; r++) {
            int64_t at = t * reads + r;
            if (at + AHEAD < tokens * reads)
                fetch(values, slots[at + AHEAD], d, half);
            int64_t from = slots[at] * d;
            for (int i = 0; i < d; i++)
                sum[i] += weights[at] * widen(values, from + i, half);
        }
        memcpy(out + t * d, sum, sizeof sum);
    }
}

/* The same for float32 rows of so many vectors: their sum stays in registers. */
INLINE void read_vectors(const float *values, int vectors, const int64_t *slots, const float *weights, int64_t tokens,
                         int reads, float *out, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t t = 0; t < tokens; t++) {
        vec sum[vectors];
        for (int l = 0; l < vectors; l++)
            sum[l] = (vec){0};
        for (int64_t at = t * reads; at < (t + 1) * reads; at++) {
            if (at + AHEAD < tokens * reads)
                fetch(values, slots[at + AHEAD], LANES * vectors, 0);
            const float *row = values + slots[at] * LANES * vectors;
            for (int l = 0; l < vectors; l++)
                sum[l] += weights[at] * load_vec(row + LANES * l);
        }
        for (int l = 0; l < vectors; l++)
            store_vec(out + (t * vectors + l) * LANES, sum[l]);
    }
}

void read_forward(const void *values, int half, int d, const int64_t *slots, const float *weights, int64_t tokens,
                  int reads, float *out, int threads)
{
    if (!half && d == 32)
        read_vectors(values, 32 / LANES, slots, weights, tokens, reads, out, threads);
    else if (!half && d == 64)
        read_vectors(values, 64 / LANES, slots, weights, tokens, reads, out, threads);
    else if (!half && d == 128)
        read_vectors(values, 128 / LANES, slots, weights, tokens, reads, out, threads);
    else if (!half && d == 256)
        read_vectors(values, 256 / LANES, slots, weights, tokens, reads, out, threads);
    else
        read_rows(values, half, d, slots, weights, tokens, reads, out, threads);
}

/* order: the reads sorted by slot, stably, as (slot << 32 | read); rows: the distinct slots, ascending; first: where the
 * reads of each begin, and behind the last. Returns how many rows there are, or -1 without memory. */
int64_t sort_reads(const int64_t *slots, int64_t count, int64_t num_slots, uint64_t *order, int64_t *rows, int64_t *first)
{
    enum { BITS = 11, SIZE = 1 << BITS };
    uint64_t *other = malloc(sizeof(uint64_t) * count + 1), *from = other, *to = order;
    if (!other)
        return -1;
    int passes = 1;
    while ((num_slots - 1) >> (BITS * passes))
        passes++;
    if (passes % 2 == 0)
        from = order, to = other;
    for (int64_t i = 0; i < count; i++)
        from[i] = (uint64_t)slots[i] << 32 | (uint64_t)i;
    for (int pass = 0; pass < passes; pass++) {
        int64_t place[SIZE + 1] = {0};
        int shift = 32 + BITS * pass;
        for (int64_t i = 0; i < count; i++)
            place[(from[i] >> shift & (SIZE - 1)) + 1]++;
        for (int digit = 0; digit < SIZE; digit++)
            place[digit + 1] += place[digit];
        for (int64_t i = 0; i < count; i++)
            to[place[from[i] >> shift & (SIZE - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to, to = swap;
    }
    free(other);
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++)
        if (i == 0 || order[i] >> 32 != order[i - 1] >> 32) {
            rows[found] = (int64_t)(order[i] >> 32);
            first[found++] = i;
        }
    first[found] = count;
    return found;
}

INLINE void visit_rows(const void *values, int half, int d, const uint64_t *order, const int64_t *rows,
                       const int64_t *first, int64_t found, int reads, const float *weights, const float *grad,
                       float *grad_weights, void *grad_rows, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found)
            fetch(values, rows[u + AHEAD], d, half);
        float sum[d], row[d];
        memset(sum, 0, sizeof sum);
        for (int i = 0; i < d; i++)
            row[i] = widen(values, rows[u] * d + i, half);
        for (int64_t i = first[u]; i < first[u + 1]; i++) {
            uint32_t read = (uint32_t)order[i];
            const float *out = grad + (int64_t)(read / (uint32_t)reads) * d;
            float weight = weights[read], dot = 0;
            #pragma omp simd reduction(+ : dot)
            for (int j = 0; j < d; j++) {
                dot += out[j] * row[j];
                sum[j] += weight * out[j];
            }
            grad_weights[read] = dot;
        }
        for (int i = 0; i < d; i++)
            narrow(grad_rows, u * d + i, half, sum[i]);
    }
}

/* The same for float32 rows of so many vectors. */
INLINE void visit_vectors(const float *values, int vectors, const uint64_t *order, const int64_t *rows,
                          const int64_t *first, int64_t found, int reads, const float *weights, const float *grad,
                          float *grad_weights, float *grad_rows, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t u = 0; u < found; u++) {
        if (u + AHEAD < found)
            fetch(values, rows[u + AHEAD], LANES * vectors, 0);
        vec sum[vectors], row[vectors];
        for (int l = 0; l < vectors; l++) {
            sum[l] = (vec){0};
            row[l] = load_vec(values + (rows[u] * vectors + l) * LANES);
        }
        for (int64_t i = first[u]; i < first[u + 1]; i++) {
            uint32_t read = (uint32_t)order[i];
            const float *out = grad + (int64_t)(read / (uint32_t)reads) * LANES * vectors;
            vec products = {0};
            for (int l = 0; l < vectors; l++) {
                vec one = load_vec(out + LANES * l);
                products += one * row[l];
                sum[l] += weights[read] * one;
            }
            float dot = 0;
            #pragma omp simd reduction(+ : dot)
            for (int j = 0; j < LANES; j++)
                dot += products[j];
            grad_weights[read] = dot;
        }
        for (int l = 0; l < vectors; l++)
            store_vec(grad_rows + (u * vectors + l) * LANES, sum[l]);
    }
}

void read_backward(const void *values, int half, int d, const uint64_t *order, const int64_t *rows,
                   const int64_t *first, int64_t found, int reads, const float *weights, const float *grad,
                   float *grad_weights, void *grad_rows, int threads)
{
#define CALL(vectors)                                                                                                \
    visit_vectors(values, vectors, order, rows, first, found, reads, weights, grad, grad_weights, grad_rows, threads)
    if (!half && d == 32)
        CALL(32 / LANES);
    else if (!half && d == 64)
        CALL(64 / LANES);
    else if (!half && d == 128)
        CALL(128 / LANES);
    else
        visit_rows(values, half, d, order, rows, first, found, reads, weights, grad, grad_weights, grad_rows, threads);
#undef CALL
}

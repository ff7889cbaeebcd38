/* The gradient of a lookup: of queries, keys and gains from that of the weights. Letters as in look_up.c. */
#include "norms.h"

enum { SOON = 2 }; /* tokens: the loop over them goes in steps too long for the processor to foresee */

typedef struct {
    float grad; /* of the score */
    uint16_t key[2]; /* row and column: there are at most 2^16 of either */
} Chosen;
_Static_assert(sizeof(Chosen) == sizeof(int64_t), "their room is as large as that of slots");

/* One token and head: from the gradients of its k weights, a softmax, those of their scores. */
INLINE void softmax_back(const float *grad, const float *weights, const int64_t *slots, int n, int k, Chosen *to)
{
    float mean = dot(grad, weights, k);
    for (int i = 0; i < k; i++) {
        uint32_t slot = slots[i], row = slot / n;
        to[i] = (Chosen){weights[i] * (grad[i] - mean), {row, slot - row * n}};
    }
}

/* One token, head and half: chosen (k), query, grad_query (c), keys and grad_keys (n, c). */
INLINE void score_back(const Chosen *chosen, int half, const float *query, const float *gain, float inverse,
                       const float *keys, int c, int k, float *grad_query, float *grad_keys)
{
    float own[c], normed[c];
    memset(own, 0, sizeof own);
    norm_row(query, gain, c, inverse, normed);
    for (int p = 0; p < k; p++) {
        int64_t key = (int64_t)chosen[p].key[half] * c;
        add_scaled(own, keys + key, chosen[p].grad, c);
        add_scaled(grad_keys + key, normed, chosen[p].grad, c);
    }
    memcpy(grad_query, own, sizeof own);
}

/* Rows from .. to of what was normed; `part` is the gradient of the gain, as far as it is theirs. */
INLINE void norms_back(float *grad, const float *x, const float *gain, const float *inverses, int64_t from, int64_t to,
                       int c, float *part)
{
    for (int64_t r = from; r < to; r++) {
#define CALL(c) norm_row_back(grad + r * c, x + r * c, gain, c, inverses[r], part)
        BY_HALF_KEY(c, CALL)
#undef CALL
    }
}

/* The score of a slot is query . (row key + column key): its gradient reaches k keys a half, not n. Gradients of keys and
 * parts start at zero; there is a part for every `few` tokens, whatever the threads. `chosen` (t, h, k) is room. */
void look_up_back(const float *grad, const float *weights, const int64_t *slots, const float *query, const float *gain,
                  const float *inverses, const float *keys, int64_t tokens, int heads, int c, int n, int k, int64_t few,
                  Chosen *chosen, float *grad_query, float *grad_keys, float *parts, int threads)
{
    #pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < tokens; first += few * threads) { /* whose gradients stay in the cache */
        int64_t end = first + few * threads < tokens ? first + few * threads : tokens;
        #pragma omp for schedule(static)
        for (int64_t row = first * heads; row < end * heads; row++)
            softmax_back(grad + row * k, weights + row * k, slots + row * k, n, k, chosen + row * k);
        #pragma omp for schedule(static)
        for (int half = 0; half < 2 * heads; half++) /* whose keys stay in it too; no two threads write to one */
            for (int64_t t = first; t < end; t++) {
                int64_t at = (t * heads + half / 2) * k, row = t * 2 * heads + half, own = (int64_t)half * n * c;
                int64_t next = t + SOON < end ? row + SOON * 2 * heads : row;
                fetch(query, next, c, 0);
                fetch(grad_query, next, c, 0);
#define CALL(c)                                                                                                       \
    score_back(chosen + at, half % 2, query + row * c, gain, gain ? inverses[row] : 1, keys + own, c, k,              \
               grad_query + row * c, grad_keys + own)
                BY_HALF_KEY(c, CALL)
#undef CALL
            }
        #pragma omp for schedule(static)
        for (int64_t from = first; from < end; from += few)
            if (gain)
                norms_back(grad_query, query, gain, inverses, from * 2 * heads,
                           (from + few < end ? from + few : end) * 2 * heads, c, parts + from / few * c);
    }
}

/* The gradient of keys from that of keys made ready, in its place, and that of the gain in parts of `few` rows. */
void ready_keys_back(float *grad, const float *keys, const float *gain, const float *inverses, int64_t rows, int c,
                     double scale, int64_t few, float *parts, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t from = 0; from < rows; from += few) {
        int64_t to = from + few < rows ? from + few : rows;
        for (int64_t i = from * c; i < to * c; i++)
            grad[i] *= (float)scale;
        if (gain)
            norms_back(grad, keys, gain, inverses, from, to, c, parts + from / few * c);
    }
}

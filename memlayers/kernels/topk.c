/* The k best of n * n product keys of each token and head, and the gradient of their scores.
 *
 * query (t, h, 2, c), keys (h, 2, n, c), scores and slots (t, h, k): best first; of equal half scores the lower key first,
 * of equal sums the one with the better row key.
 * A NaN ranks above everything, so that it is seen in the loss.
 *
 * Tokens go side by side, one in each lane of a vector, and what they find goes into lists of the best, see best.h; no
 * score is ever written to memory.
 */
#include "best.h"

/* The best keys (n, c) of LANES queries, turned: (c, LANES); a list for each group of tokens. */
INLINE void best_keys(const vec *query, const float *keys, int c, int n, int blocks, wide *const *lists)
{
    for (int g = 0; g < 2; g++)
        clear(lists[g], blocks);
    for (int e = 0; e < n; e += BLOCK) {
        const float *key[BLOCK];
        vec score[BLOCK];
        half_ivec rank[BLOCK][2];
        for (int b = 0; b < BLOCK; b++) { /* behind the last key the last one again: it is not taken */
            key[b] = keys + (int64_t)(e + b < n ? e + b : n - 1) * c;
            score[b] = (vec){0};
        }
        for (int j = 0; j < c; j++)
            for (int b = 0; b < BLOCK; b++)
                score[b] += key[b][j] * query[j];
        for (int b = 0; b < BLOCK; b++) {
            ivec both = RANK(ivec, score[b]);
            memcpy(rank[b], &both, sizeof both);
        }
        for (int g = 0; g < 2; g++) {
            wide found[BLOCK];
            for (int b = 0; b < BLOCK; b++)
                found[b] = e + b < n ? with_index(rank[b][g], e + b) : NOTHING;
            take(found, lists[g], blocks);
        }
    }
}

/* The k best sums of a row and a column key; of all pairs (a, b) the others are beaten, or equalled, by k of these. */
INLINE void best_sums(const wide *rows, const wide *columns, int k, int blocks, wide *list)
{
    wide found[BLOCK];
    int waiting = 0;
    clear(list, blocks);
    for (int a = 0; a < k; a++)
        for (int b = 0; (a + 1) * (b + 1) <= k; b++) {
            half_vec sum = value_of(rows[a]) + value_of(columns[b]);
            found[waiting++] = with_index(RANK(half_ivec, sum), a << 16 | b);
            if (waiting == BLOCK) {
                take(found, list, blocks);
                waiting = 0;
            }
        }
    if (waiting) {
        while (waiting < BLOCK)
            found[waiting++] = NOTHING;
        take(found, list, blocks);
    }
}

/* One head of tokens first .. first + LANES. Room for c + 6 * BLOCK * blocks vectors. */
INLINE void search(const float *query, const float *keys, int64_t first, int64_t tokens, int heads, int h, int c, int n,
                   int k, int blocks, vec *room, float *scores, int64_t *slots)
{
    wide *lists[3][2]; /* rows, columns, sums; of both groups of tokens */
    for (int i = 0; i < 6; i++)
        lists[i / 2][i % 2] = (wide *)(room + c) + i * BLOCK * blocks;
    for (int two = 0; two < 2; two++) {
        for (int i = 0; i < LANES; i++) { /* behind the last token the last one again: it is not written */
            int64_t t = first + i < tokens ? first + i : tokens - 1;
            for (int j = 0; j < c; j++)
                ((float *)room)[j * LANES + i] = query[((t * heads + h) * 2 + two) * c + j];
        }
        best_keys(room, keys + (int64_t)(2 * h + two) * n * c, c, n, blocks, lists[two]);
    }
    for (int g = 0; g < 2; g++) {
        best_sums(lists[0][g], lists[1][g], k, blocks, lists[2][g]);
        for (int p = 0; p < k; p++) {
            half_vec score = value_of(lists[2][g][p]);
            for (int i = 0; i < GROUP && first + g * GROUP + i < tokens; i++) {
                int64_t at = ((first + g * GROUP + i) * heads + h) * k + p;
                uint32_t pair = index_of(lists[2][g] + p, i);
                scores[at] = score[i];
                slots[at] = (int64_t)index_of(lists[0][g] + (pair >> 16), i) * n
                          + index_of(lists[1][g] + (pair & 0xFFFF), i);
            }
        }
    }
}

/* Returns -1 without memory. */
int topk_forward(const float *query, const float *keys, int64_t tokens, int heads, int c, int n, int k, float *scores,
                 int64_t *slots, int threads)
{
    int failed = 0, blocks = (k + BLOCK - 1) / BLOCK;
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1) reduction(| : failed)
    for (int64_t first = 0; first < tokens; first += LANES) {
        vec *room = aligned_alloc(sizeof(vec), sizeof(vec) * (c + 6 * BLOCK * blocks));
        failed |= !room;
        for (int h = 0; room && h < heads; h++)
            if (blocks == 1)
                search(query, keys, first, tokens, heads, h, c, n, k, 1, room, scores, slots);
            else
                search(query, keys, first, tokens, heads, h, c, n, k, blocks, room, scores, slots);
        free(room);
    }
    return -failed;
}

/* One token and head: query, sum (2, c), keys and grad_keys (2, n, c). */
INLINE void pass_back(const float *grad, const int64_t *slots, const float *query, const float *keys, int c, int n,
                      int k, float *sum, float *grad_keys)
{
    float own[2 * c];
    memset(own, 0, sizeof own);
    for (int p = 0; p < k; p++) {
        uint32_t slot = slots[p], row = slot / n, column = n + slot - row * n;
        add_scaled(own, keys + (int64_t)row * c, grad[p], c);
        add_scaled(own + c, keys + (int64_t)column * c, grad[p], c);
        add_scaled(grad_keys + (int64_t)row * c, query, grad[p], c);
        add_scaled(grad_keys + (int64_t)column * c, query + c, grad[p], c);
    }
    memcpy(sum, own, sizeof own);
}

/* The score of a slot is query . (row key + column key): its gradient reaches k keys a half, not n.
 * grad and slots (t, h, k), keys (h, 2, n, c); grad_query (t, h, 2, c); grad_keys (h, 2, n, c) starts at zero. */
void topk_backward(const float *grad, const int64_t *slots, const float *query, const float *keys, int64_t tokens,
                   int heads, int c, int n, int k, float *grad_query, float *grad_keys, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int h = 0; h < heads; h++) /* no two threads write to one key */
        for (int64_t at = h; at < tokens * heads; at += heads) {
            int64_t own = (int64_t)2 * h * n * c;
#define CALL(c)                                                                                                       \
    pass_back(grad + at * k, slots + at * k, query + at * 2 * c, keys + own, c, n, k, grad_query + at * 2 * c,        \
              grad_keys + own)
            BY_HALF_KEY(c, CALL)
#undef CALL
        }
}

/* The k best of n * n product keys of each token and head, and the gradient of their scores.
 *
 * query (t, h, 2, c), keys (h, 2, n, c), scores and slots (t, h, k): best first; of equal half scores the lower key first,
 * of equal sums the one with the better row key.
 * A NaN ranks above everything, so that it is seen in the loss.
 *
 * Tokens go side by side, one in each lane of a vector: every score is inserted into a sorted list of the k
 * best with the same instructions whatever the scores are, and no score is ever written to memory.
 */
#include "native.h"

enum { BLOCK = 8 }; /* keys that are scored at a time */

/* Floats as integers of the same order, NaN on top; and back. */
INLINE ivec rank_of(vec x)
{
    ivec bits = (ivec)select_vec((ivec)(x == x), (ivec)x, (ivec){0} + 0x7FC00000);
    return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

INLINE vec value_of(ivec rank)
{
    return (vec)(rank ^ ((rank >> 31) & 0x7FFFFFFF));
}

/* Lists of the k best so far, of each lane: best first. */
INLINE void insert(ivec *rank, ivec *index, int k, ivec new_rank, ivec new_index)
{
    for (int p = 0; p < k; p++) {
        ivec more = new_rank > rank[p], old_rank = rank[p], old_index = index[p];
        rank[p] = largest(new_rank, old_rank);
        new_rank = least(new_rank, old_rank);
        index[p] = select_vec(more, new_index, old_index);
        new_index = select_vec(more, old_index, new_index);
    }
}

/* The k best keys (n, c) of LANES queries, turned: (c, LANES). */
INLINE void best_keys(const vec *query, const float *keys, int c, int n, int k, ivec *best_rank, ivec *best_index)
{
    ivec rank[k], index[k]; /* in registers, where k is known and small */
    for (int p = 0; p < k; p++)
        rank[p] = index[p] = (ivec){0} + INT32_MIN;
    for (int e = 0; e < n; e += BLOCK) {
        const float *key[BLOCK];
        vec score[BLOCK];
        ivec found[BLOCK];
        for (int b = 0; b < BLOCK; b++) { /* behind the last key the last one again: it is not inserted */
            key[b] = keys + (int64_t)(e + b < n ? e + b : n - 1) * c;
            score[b] = (vec){0};
        }
        for (int j = 0; j < c; j++)
            for (int b = 0; b < BLOCK; b++)
                score[b] += key[b][j] * query[j];
        ivec some = {0};
        for (int b = 0; b < BLOCK; b++) {
            found[b] = rank_of(score[b]);
            some |= found[b] > rank[k - 1];
        }
        if (any(some))
            for (int b = 0; b < BLOCK && e + b < n; b++)
                insert(rank, index, k, found[b], (ivec){0} + e + b);
    }
    for (int p = 0; p < k; p++) {
        best_rank[p] = rank[p];
        best_index[p] = index[p];
    }
}

/* One head of tokens first .. first + LANES; lists hold k_list >= k. Room for c + 6 * k_list vectors. */
INLINE void search(const float *query, const float *keys, int64_t first, int64_t tokens, int heads, int h, int c, int n,
                   int k, int k_list, vec *room, float *scores, int64_t *slots)
{
    ivec *lists = (ivec *)(room + c), *rank[3], *index[3];
    for (int list = 0; list < 3; list++) {
        rank[list] = lists + 2 * list * k_list;
        index[list] = rank[list] + k_list;
    }
    for (int two = 0; two < 2; two++) {
        for (int i = 0; i < LANES; i++) { /* behind the last token the last one again: it is not written */
            int64_t t = first + i < tokens ? first + i : tokens - 1;
            for (int j = 0; j < c; j++)
                ((float *)room)[j * LANES + i] = query[((t * heads + h) * 2 + two) * c + j];
        }
        best_keys(room, keys + (int64_t)(2 * h + two) * n * c, c, n, k_list, rank[two], index[two]);
    }
    for (int p = 0; p < k_list; p++)
        rank[2][p] = index[2][p] = (ivec){0} + INT32_MIN;
    for (int a = 0; a < k; a++)
        for (int b = 0; (a + 1) * (b + 1) <= k; b++) { /* the others are beaten, or equalled, by k of these */
            ivec sum = rank_of(value_of(rank[0][a]) + value_of(rank[1][b]));
            insert(rank[2], index[2], k_list, sum, (ivec){0} + a * k + b);
        }
    for (int i = 0; i < LANES && first + i < tokens; i++)
        for (int p = 0; p < k; p++) {
            int64_t at = ((first + i) * heads + h) * k + p;
            int pair = index[2][p][i];
            scores[at] = value_of(rank[2][p])[i];
            slots[at] = (int64_t)index[0][pair / k][i] * n + index[1][pair % k][i];
        }
}

/* Returns -1 without memory. */
int topk_forward(const float *query, const float *keys, int64_t tokens, int heads, int c, int n, int k, float *scores,
                 int64_t *slots, int threads)
{
    int failed = 0;
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1) reduction(| : failed)
    for (int64_t first = 0; first < tokens; first += LANES) {
        vec *room = malloc(sizeof(vec) * (c + 6 * (k < 8 ? 8 : k)));
        failed |= !room;
        for (int h = 0; room && h < heads; h++)
            if (k <= 8)
                search(query, keys, first, tokens, heads, h, c, n, k, 8, room, scores, slots);
            else
                search(query, keys, first, tokens, heads, h, c, n, k, k, room, scores, slots);
        free(room);
    }
    return -failed;
}

/* One token and head: query, sum (2, c), keys and grad_keys (2, n, c). */
INLINE void pass_back(const float *grad, const int64_t *slots, const float *query, const float *keys, int c, int n,
                      int k, float *restrict sum, float *restrict grad_keys)
{
    float q[2 * c], own[2 * c];
    memcpy(q, query, sizeof q);
    memset(own, 0, sizeof own);
    for (int p = 0; p < k; p++) {
        uint32_t slot = (uint32_t)slots[p], row = slot / n, column = slot - row * n;
        int64_t first = (int64_t)row * c, second = ((int64_t)n + column) * c;
        for (int j = 0; j < c; j++) {
            own[j] += grad[p] * keys[first + j];
            grad_keys[first + j] += grad[p] * q[j];
        }
        for (int j = 0; j < c; j++) {
            own[c + j] += grad[p] * keys[second + j];
            grad_keys[second + j] += grad[p] * q[c + j];
        }
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
            if (c == 8)
                CALL(8);
            else if (c == 16)
                CALL(16);
            else
                CALL(c);
#undef CALL
        }
}

/* The k best of n * n product keys of each token and head, and the gradient of their scores.
 *
 * query (t, h, 2, c), keys (h, 2, n, c), scores and slots (t, h, k): best first; of equal half scores the lower key first,
 * of equal sums the one with the better row key.
 * A NaN ranks above everything, so that it is seen in the loss.
 *
 * Tokens go side by side, one in each lane of a vector, and what they find goes into lists of the best, see best.h. Of
 * scores no more than those of a few tokens and one half of a head are kept, in the cache.
 */
#include "best.h"

enum { FEW = 128 }; /* keys that are sorted as fast as they are sifted */

/* Ranks (n, LANES) of the scores of keys (n, c) for LANES queries, turned: (c, LANES). Room for whole blocks of keys. */
INLINE void rank_keys(const vec *query, const float *keys, int c, int n, ivec *ranks)
{
    for (int e = 0; e < n; e += BLOCK) {
        const float *key[BLOCK];
        vec score[BLOCK];
        for (int b = 0; b < BLOCK; b++) { /* behind the last key the last one again: nobody reads it */
            key[b] = keys + (int64_t)(e + b < n ? e + b : n - 1) * c;
            score[b] = (vec){0};
        }
        for (int j = 0; j < c; j++)
            for (int b = 0; b < BLOCK; b++)
                score[b] += key[b][j] * query[j];
        for (int b = 0; b < BLOCK; b++)
            ranks[e + b] = RANK(ivec, score[b]);
    }
}

/* Ranks that at least k keys reach: of the k-th best of groups of `size` keys, each of which counts by its best. */
INLINE void bounds_of(const ivec *ranks, int n, int size, int k, int blocks, wide *const *found, wide *const *lists,
                      half_ivec *bounds)
{
    int groups = 0;
    for (int e = 0; e < n; e += size, groups++) {
        ivec most = ranks[e];
        for (int i = e + 1; i < e + size && i < n; i++)
            most = larger_rank(most, ranks[i]);
        for (int g = 0; g < 2; g++)
            found[g][groups] = with_index(half(&most, g), 0);
    }
    for (int g = 0; g < 2; g++) {
        best_of(found[g], groups, lists[g], blocks);
        bounds[g] = __builtin_convertvector(lists[g][k - 1] >> 32, half_ivec);
    }
}

/* Keys that reach the bounds, each token's own, to `found`; returns how many, filled up where others have more. */
INLINE int keys_that_reach(const half_ivec *bounds, const ivec *ranks, int n, wide *const *found)
{
    int count[LANES] = {0}, most = 0;
    for (int start = 0; start < n; start += 64) {
        wide reach[2] = {{0}, {0}}; /* bit e of a lane: whether key start + e does */
        for (int e = 0; e < 64 && start + e < n; e++)
            for (int g = 0; g < 2; g++)
                reach[g] |= __builtin_convertvector(half(ranks + start + e, g) >= bounds[g], wide) & (int64_t)1 << e;
        for (int i = 0; i < LANES; i++)
            for (uint64_t left = reach[i / GROUP][i % GROUP]; left; left &= left - 1) {
                int e = start + __builtin_ctzll(left);
                put(found[i / GROUP] + count[i]++, i % GROUP, (int64_t)ranks[e][i] << 32 | (uint32_t)~e);
            }
    }
    for (int i = 0; i < LANES; i++)
        most = count[i] > most ? count[i] : most;
    for (int i = 0; i < LANES; i++)
        while (count[i] < most)
            put(found[i / GROUP] + count[i]++, i % GROUP, INT64_MIN);
    return most;
}

/* The k best keys by their ranks. Where keys are many, only those are sorted that reach a bound: with twice as many groups
 * as a list is long, they are little more than k. */
INLINE void best_keys(const ivec *ranks, int n, int k, int blocks, wide *const *found, wide *const *lists)
{
    int size = n / (2 * BLOCK * blocks), count = n;
    if (n > FEW && size > 1) {
        half_ivec bounds[2];
        bounds_of(ranks, n, size, k, blocks, found, lists, bounds);
        count = keys_that_reach(bounds, ranks, n, found);
    } else
        for (int e = 0; e < n; e++)
            for (int g = 0; g < 2; g++)
                found[g][e] = with_index(half(ranks + e, g), e);
    for (int g = 0; g < 2; g++)
        best_of(found[g], count, lists[g], blocks);
}

/* The k best sums of a row and a column key; of all pairs (a, b) the others are beaten, or equalled, by k of these. */
INLINE void best_sums(const wide *rows, const wide *columns, int k, int blocks, wide *found, wide *list)
{
    int count = 0;
    for (int a = 0; a < k; a++)
        for (int b = 0; (a + 1) * (b + 1) <= k; b++) {
            half_vec sum = value_of(rows[a]) + value_of(columns[b]);
            found[count++] = with_index(RANK(half_ivec, sum), a << 16 | b);
        }
    best_of(found, count, list, blocks);
}

/* Vectors of room that a search needs: the queries, six lists, ranks, and what is found, twice: n keys, or the pairs of
 * k, which are fewer than 7 k, in whole blocks. */
INLINE int64_t room_for(int c, int n, int k, int blocks)
{
    return c + 6 * BLOCK * blocks + n + BLOCK + 2 * ((int64_t)n + 7 * k + BLOCK);
}

/* One head of tokens first .. first + LANES. */
INLINE void search(const float *query, const float *keys, int64_t first, int64_t tokens, int heads, int h, int c, int n,
                   int k, int blocks, vec *room, float *scores, int64_t *slots)
{
    wide *lists[3][2], *found[2]; /* rows, columns, sums; of both groups of tokens */
    for (int i = 0; i < 6; i++)
        lists[i / 2][i % 2] = (wide *)(room + c) + i * BLOCK * blocks;
    ivec *ranks = (ivec *)(room + c) + 6 * BLOCK * blocks;
    for (int g = 0; g < 2; g++)
        found[g] = (wide *)(ranks + n + BLOCK) + g * (n + 7 * k + BLOCK);
    for (int two = 0; two < 2; two++) {
        for (int i = 0; i < LANES; i++) { /* behind the last token the last one again: it is not written */
            int64_t t = first + i < tokens ? first + i : tokens - 1;
            for (int j = 0; j < c; j++)
                ((float *)room)[j * LANES + i] = query[((t * heads + h) * 2 + two) * c + j];
        }
        rank_keys(room, keys + (int64_t)(2 * h + two) * n * c, c, n, ranks);
        best_keys(ranks, n, k, blocks, found, lists[two]);
    }
    for (int g = 0; g < 2; g++) {
        best_sums(lists[0][g], lists[1][g], k, blocks, found[g], lists[2][g]);
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
    #pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
    {
        vec *room = aligned_alloc(sizeof(vec), sizeof(vec) * room_for(c, n, k, blocks));
        failed |= !room;
        #pragma omp for schedule(static)
        for (int64_t first = 0; first < tokens; first += LANES)
            for (int h = 0; room && h < heads; h++)
                if (blocks == 1)
                    search(query, keys, first, tokens, heads, h, c, n, k, 1, room, scores, slots);
                else
                    search(query, keys, first, tokens, heads, h, c, n, k, blocks, room, scores, slots);
        free(room);
    }
    return -failed;
}

/* One token, head and half: query, sum (c), keys and grad_keys (n, c). */
INLINE void pass_back(const float *grad, const int64_t *slots, const float *query, const float *keys, int c, int n,
                      int k, int column, float *sum, float *grad_keys)
{
    float own[c];
    memset(own, 0, sizeof own);
    for (int p = 0; p < k; p++) {
        uint32_t slot = slots[p], row = slot / n;
        int64_t key = (int64_t)(column ? slot - row * n : row) * c;
        add_scaled(own, keys + key, grad[p], c);
        add_scaled(grad_keys + key, query, grad[p], c);
    }
    memcpy(sum, own, sizeof own);
}

/* The score of a slot is query . (row key + column key): its gradient reaches k keys a half, not n.
 * grad and slots (t, h, k), keys (h, 2, n, c); grad_query (t, h, 2, c); grad_keys (h, 2, n, c) starts at zero. */
void topk_backward(const float *grad, const int64_t *slots, const float *query, const float *keys, int64_t tokens,
                   int heads, int c, int n, int k, float *grad_query, float *grad_keys, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int half = 0; half < 2 * heads; half++) /* whose keys stay in the cache; no two threads write to one */
        for (int64_t at = half / 2; at < tokens * heads; at += heads) {
            int64_t own = (int64_t)half * n * c, mine = (2 * at + half % 2) * c;
#define CALL(c)                                                                                                       \
    pass_back(grad + at * k, slots + at * k, query + mine, keys + own, c, n, k, half % 2, grad_query + mine,          \
              grad_keys + own)
            BY_HALF_KEY(c, CALL)
#undef CALL
        }
}

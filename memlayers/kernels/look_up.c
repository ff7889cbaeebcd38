/* The lookup: the k best of n * n product keys of each token and head.
 *
 * query (t, h, 2, c), keys (h, 2, n, c), scores and slots (t, h, k): best first; of equal half scores the lower key first,
 * of equal sums the one with the better row key. With gains (c), queries and keys are normed.
 * A NaN ranks above everything, so that it is seen in the loss.
 *
 * Tokens go side by side, one in each lane of a vector, and what they find goes into lists of the best, see best.h. Of
 * scores no more than those of a few tokens and one half of a head are kept, in the cache.
 */
#include "norms.h"
#include "select.h"

enum { MANY = LANES == 16 ? 16 : 8 }; /* keys that are scored at a time: of AVX512 there are twice as many registers */

INLINE void rank_some(const vec *query, const float *keys, int c, int many, ivec *ranks)
{
    vec score[MANY];
    for (int b = 0; b < many; b++)
        score[b] = (vec){0};
    for (int j = 0; j < c; j++)
        for (int b = 0; b < many; b++)
            score[b] += keys[b * c + j] * query[j];
    for (int b = 0; b < many; b++)
        ranks[b] = RANK(ivec, score[b]);
}

/* Ranks (n, LANES) of the scores of keys (n, c) for LANES queries, turned: (c, LANES). */
static void rank_keys(const vec *query, const float *keys, int c, int n, ivec *ranks)
{
    int e = 0;
#define CALL(c)                                                                                                       \
    for (; e + MANY <= n; e += MANY)                                                                                  \
        rank_some(query, keys + e * c, c, MANY, ranks + e)
    BY_HALF_KEY(c, CALL)
#undef CALL
    for (; e < n; e++)
        rank_some(query, keys + e * c, c, 1, ranks + e);
}

/* Vectors of room for what is found by one group of tokens: n keys and what is put down behind them, or the pairs of k,
 * which are fewer than 7 k, in whole blocks. */
INLINE int64_t room_for_found(int n, int k)
{
    return (int64_t)n + 7 * k + 2 * FEW;
}

/* And for a search: the queries, six lists, ranks, and what is found, twice. */
INLINE int64_t room_for(int c, int n, int k, int blocks)
{
    return c + 6 * BLOCK * blocks + n + 2 * room_for_found(n, k);
}

typedef struct {
    const float *query, *query_gain, *keys;
    float *inverses, *scores;
    int64_t *slots, tokens;
    int heads, c, n, k;
    float eps;
} Search;

INLINE int64_t row_of(const Search *s, int64_t t, int h, int two)
{
    return ((t < s->tokens ? t : s->tokens - 1) * s->heads + h) * 2 + two;
}

/* One head of tokens first .. first + LANES. */
INLINE void search(const Search *s, int64_t first, int h, int blocks, vec *room)
{
    int c = s->c, n = s->n, k = s->k;
    wide *lists[3][2], *found[2]; /* rows, columns, sums; of both groups of tokens */
    for (int i = 0; i < 6; i++)
        lists[i / 2][i % 2] = (wide *)(room + c) + i * BLOCK * blocks;
    ivec *ranks = (ivec *)(room + c) + 6 * BLOCK * blocks;
    for (int g = 0; g < 2; g++)
        found[g] = (wide *)(ranks + n) + g * room_for_found(n, k);
    for (int two = 0; two < 2; two++) {
        const float *rows[LANES];
        float inverses[LANES];
        for (int i = 0; i < LANES; i++) /* behind the last token the last one again: it is not written */
            rows[i] = s->query + row_of(s, first + i, h, two) * c;
        turn(rows, c, room);
        if (s->query_gain) {
            norm_columns(room, s->query_gain, c, s->eps, inverses);
            for (int i = 0; i < LANES; i++)
                s->inverses[row_of(s, first + i, h, two)] = inverses[i];
        }
        rank_keys(room, s->keys + (int64_t)(2 * h + two) * n * c, c, n, ranks);
        best_keys(ranks, n, k, blocks, found, lists[two]);
    }
    for (int g = 0; g < 2; g++) {
        best_sums(lists[0][g], lists[1][g], k, blocks, found[g], lists[2][g]);
        half_vec best = value_of(lists[2][g][0]);
        for (int p = 0; p < k; p++) {
            half_vec score = value_of(lists[2][g][p]) - best;
            for (int i = 0; i < GROUP && first + g * GROUP + i < s->tokens; i++) {
                int64_t at = ((first + g * GROUP + i) * s->heads + h) * k + p;
                uint32_t pair = index_of(lists[2][g] + p, i);
                s->scores[at] = score[i];
                s->slots[at] = (int64_t)index_of(lists[0][g] + (pair >> 16), i) * n
                             + index_of(lists[1][g] + (pair & 0xFFFF), i);
            }
        }
    }
}

/* Keys as they are scored, scaled; inverses (h, 2, n), of their root mean squares, are written where there is a gain. */
void ready_keys(const float *keys, const float *gain, int64_t rows, int c, double eps, double scale, float *inverses,
                float *ready, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        float inverse = gain ? inverse_of(keys + r * c, c, eps) : 1;
        if (gain)
            inverses[r] = inverse;
        norm_row(keys + r * c, gain, c, inverse, ready + r * c);
        for (int j = 0; j < c; j++)
            ready[r * c + j] *= (float)scale;
    }
}

/* Scores less the best of their token and head. Returns -1 without memory. */
int look_up(const float *query, const float *query_gain, const float *keys, int64_t tokens, int heads, int c, int n, int k,
            double eps, float *inverses, float *scores, int64_t *slots, int threads)
{
    Search own = {query, query_gain, keys, inverses, scores, slots, tokens, heads, c, n, k, eps};
    int failed = 0, blocks = (k + BLOCK - 1) / BLOCK;
    #pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
    {
        vec *room = aligned_alloc(sizeof(vec), sizeof(vec) * room_for(c, n, k, blocks));
        failed |= !room;
        #pragma omp for schedule(static)
        for (int64_t first = 0; first < tokens; first += LANES)
            for (int h = 0; room && h < heads; h++)
                if (blocks == 1)
                    search(&own, first, h, 1, room);
                else
                    search(&own, first, h, blocks, room);
        free(room);
    }
    return -failed;
}

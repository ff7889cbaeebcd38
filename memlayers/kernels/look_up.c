/* The lookup: the k best of n * n product keys of each token and head.
 *
 * query (t, h, 2, c), keys (h, 2, n, c), scores and slots (t, h, k): best first; of equal half scores the lower key first,
 * of equal sums the one with the better row key. With gains (c), queries and keys are normed.
 * A NaN ranks above everything, so that it is seen in the loss.
 *
 * Tokens go side by side, one in each lane of a vector, and what they find goes into lists of the best, see best.h. Of
 * scores no more than those of a few tokens and one half of a head are kept, in the cache.
 */
#include "best.h"
#include "norms.h"

enum { MANY = LANES == 16 ? 16 : 8 }; /* keys that are scored at a time: of AVX512 there are twice as many registers */
enum { FEW = 8 };                      /* keys that are put down at a time */

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

/* Ranks that at least k keys reach: of the k-th best of groups of `size` keys, each of which counts by its best. */
INLINE ivec bounds_of(const ivec *ranks, int n, int size, int k, int blocks, ivec *most, ivec *list)
{
    int groups = 0;
    for (int e = 0; e < n; e += size, groups++) {
        most[groups] = ranks[e];
        for (int i = e + 1; i < e + size && i < n; i++)
            most[groups] = rank_larger(most[groups], ranks[i]);
    }
    rank_best_of(most, groups, list, blocks);
    return list[k - 1];
}

INLINE void put(wide *const *found, int lane, int at, int64_t value)
{
    ((int64_t *)(found[lane / GROUP] + at))[lane % GROUP] = value;
}

/* Keys that reach the bounds, each token's own, to `found`; returns how many, filled up where others have more. A token
 * puts down FEW at a time, also if it has fewer: to guess wrong how many it has takes as long as to put down a dozen. */
INLINE int keys_that_reach(ivec bounds, const ivec *ranks, int n, wide *const *found)
{
    int count[LANES] = {0}, most = 0;
    for (int start = 0; start < n; start += 64) {
        ivec reach[2] = {{0}, {0}}; /* bit e of a lane: whether key start + e, or start + 32 + e, does */
        for (int two = 0; two < 2; two++)
            for (int e = 0, from = start + 32 * two; e < 32 && from + e < n; e++)
                reach[two] |= (ranks[from + e] >= bounds) & (int32_t)(1u << e);
        for (int i = 0; i < LANES; i++) {
            uint64_t left = (uint32_t)reach[0][i] | (uint64_t)(uint32_t)reach[1][i] << 32;
            int many = __builtin_popcountll(left), p = 0;
            do {
                for (int end = p + FEW; p < end; p++, left &= left - 1) {
                    int e = start + __builtin_ctzll(left | 1ull << 63); /* behind the last key is room to read, too */
                    put(found, i, count[i] + p, with_index(((const int32_t *)(ranks + e))[i], e));
                }
            } while (p < many);
            count[i] += many;
        }
    }
    for (int i = 0; i < LANES; i++)
        most = count[i] > most ? count[i] : most;
    for (int i = 0; i < LANES; i++)
        do {
            for (int end = count[i] + FEW; count[i] < end; count[i]++)
                put(found, i, count[i], INT64_MIN);
        } while (count[i] < most);
    return most;
}

/* The k best keys by their ranks. Where keys are many, only those are sorted that reach a bound: with twice as many groups
 * as a list is long, they are little more than k. */
INLINE void best_keys(const ivec *ranks, int n, int k, int blocks, wide *const *found, wide *const *lists)
{
    int size = n / (2 * BLOCK * blocks), count = n;
    if (size > 1) {
        ivec bounds = bounds_of(ranks, n, size, k, blocks, (ivec *)found[0], (ivec *)lists[0]);
        count = keys_that_reach(bounds, ranks, n, found);
    } else
        for (int e = 0; e < n; e++)
            for (int g = 0; g < 2; g++)
                found[g][e] = all_with_index(((const half_ivec *)(ranks + e))[g], e);
    for (int g = 0; g < 2; g++)
        wide_best_of(found[g], count, lists[g], blocks);
}

/* The best sums of a row and a column key; of all pairs (a, b) the others are beaten, or equalled, by k of these. */
INLINE void best_sums(const wide *rows, const wide *columns, int k, int blocks, wide *found, wide *list)
{
    int count = 0;
    for (int a = 0; a < k; a++)
        for (int b = 0; (a + 1) * (b + 1) <= k; b++) {
            half_vec sum = value_of(rows[a]) + value_of(columns[b]);
            found[count++] = all_with_index(RANK(half_ivec, sum), a << 16 | b);
        }
    wide_best_of(found, count, list, blocks);
}

/* Vectors of room that a search needs: the queries, six lists, ranks, and what is found, twice: n keys and what is put
 * down behind them, or the pairs of k, which are fewer than 7 k, in whole blocks. */
INLINE int64_t room_for_found(int n, int k)
{
    return (int64_t)n + 7 * k + 2 * FEW;
}

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
                float *ready)
{
    float by = scale, inverse = 1;
    for (int64_t r = 0; r < rows; r++) {
        if (gain)
            inverses[r] = inverse = inverse_of(keys + r * c, c, eps);
        norm_row(keys + r * c, gain, c, inverse, ready + r * c);
        for (int j = 0; j < c; j++)
            ready[r * c + j] *= by;
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

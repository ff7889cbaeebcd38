#pragma once
/* Of the ranks of all keys the k best, and of the pairs of two halves the k best sums. */
#include "best.h"

enum { FEW = 8 }; /* keys written at a time */

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
 * writes FEW at a time even if it has fewer: a mispredicted count costs as much as a dozen writes. */
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

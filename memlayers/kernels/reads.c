/* Weighted reads of rows of a table, and their gradients: values (num_slots, d), slots and weights (t, r).
 *
 * Sums are in float32 and in the order of the reads, on however many threads.
 */
#include "native.h"

/* The sum of one token's reads, whatever the type and width of the rows. `left` reads are left, of this token and others:
 * rows are fetched AHEAD of their turn, one for each that is added, so that memory is never asked for more than it brings. */
INLINE void sum_rows(const void *values, int bf16, int d, const int64_t *slots, int64_t left, const float *weights,
                     int reads, float *out)
{
    float sum[d];
    memset(sum, 0, sizeof sum);
    for (int r = 0; r < reads; r++) {
        fetch_early(values, slots[r + AHEAD < left ? r + AHEAD : r], d, bf16);
        for (int i = 0; i < d; i++)
            sum[i] += weights[r] * widen(values, slots[r] * d + i, bf16);
    }
    memcpy(out, sum, sizeof sum);
}

enum { L2_BYTES = 1 << 20 }; /* bytes: of many processors, and of others at least */

/* The same of n vectors of float32 rows, in registers. A table that L2 holds is fetched to L1. */
INLINE void sum_block(const float *values, int d, int n, const int64_t *slots, int64_t left, const float *weights,
                      int reads, int is_small, float *out)
{
    vec sum[8];
    for (int i = 0; i < n; i++)
        sum[i] = (vec){0};
    for (int r = 0; r < reads; r++) {
        const float *row = values + slots[r] * d, *ahead = values + slots[r + AHEAD < left ? r + AHEAD : r] * d;
        if (is_small)
            fetch(ahead, 0, n * LANES, 0);
        else
            fetch_early(ahead, 0, n * LANES, 0);
        for (int i = 0; i < n; i++)
            sum[i] += weights[r] * load_vec(row + i * LANES);
    }
    for (int i = 0; i < n; i++)
        store_vec(out + i * LANES, sum[i]);
}

/* Returns 0, or 1 if a slot is not one of num_slots; then `out` is not complete. */
int read_forward(const void *values, int bf16, int64_t num_slots, int d, const int64_t *slots, const float *weights,
                 int64_t tokens, int reads, float *out, int threads)
{
    int wrong = 0, is_small = num_slots * d * (int64_t)sizeof(float) <= L2_BYTES;
    #pragma omp parallel for num_threads(threads) schedule(static) reduction(| : wrong) if (threads > 1)
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t *mine = slots + t * reads, left = (tokens - t) * reads;
        const float *own = weights + t * reads;
        float *sum = out + t * d;
        int outside = 0, i = 0;
        for (int r = 0; r < reads; r++)
            outside |= (uint64_t)mine[r] >= (uint64_t)num_slots;
        wrong |= outside;
        if (outside)
            continue;
        if (bf16 || d % LANES)
            sum_rows(values, bf16, d, mine, left, own, reads, sum);
        else {
            const float *from = values;
            for (; i + 8 * LANES <= d; i += 8 * LANES)
                sum_block(from + i, d, 8, mine, left, own, reads, is_small, sum + i);
            for (; i + 4 * LANES <= d; i += 4 * LANES)
                sum_block(from + i, d, 4, mine, left, own, reads, is_small, sum + i);
            for (; i < d; i += LANES)
                sum_block(from + i, d, 1, mine, left, own, reads, is_small, sum + i);
        }
    }
    return wrong;
}

/* order: the reads sorted by slot, stably, as (slot << 32 | read); rows: the distinct slots, ascending; first: where the
 * reads of each begin, and behind the last. Returns how many rows there are, or -1 without memory. */
int64_t sort_reads(const int64_t *slots, int64_t count, int64_t num_slots, uint64_t *order, int64_t *rows, int64_t *first)
{
    enum { MOST = 14 }; /* bits of a digit: its places fit into the cache beside what is sorted */
    uint64_t *other = malloc(sizeof(uint64_t) * count + 1), *from = other, *to = order;
    uint32_t *place = malloc(sizeof(uint32_t) * ((1 << MOST) + 1));
    if (!other || !place) {
        free(other), free(place);
        return -1;
    }
    int length = 1, passes, bits;
    while ((num_slots - 1) >> length)
        length++;
    passes = (length + MOST - 1) / MOST, bits = (length + passes - 1) / passes;
    int64_t size = (int64_t)1 << bits;
    if (passes % 2 == 0)
        from = order, to = other;
    for (int64_t i = 0; i < count; i++)
        from[i] = (uint64_t)slots[i] << 32 | (uint64_t)i;
    for (int pass = 0; pass < passes; pass++) {
        int shift = 32 + bits * pass;
        memset(place, 0, sizeof(uint32_t) * (size + 1));
        for (int64_t i = 0; i < count; i++)
            place[(from[i] >> shift & (size - 1)) + 1]++;
        for (int64_t digit = 0; digit < size; digit++)
            place[digit + 1] += place[digit];
        for (int64_t i = 0; i < count; i++)
            to[place[from[i] >> shift & (size - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to, to = swap;
    }
    free(place);
    free(other);
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) { /* written unconditionally: the branch would be unpredictable */
        rows[found] = (int64_t)(order[i] >> 32);
        first[found] = i;
        found += i == 0 || order[i] >> 32 != order[i - 1] >> 32;
    }
    first[found] = count;
    return found;
}

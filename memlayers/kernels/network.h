/* Lists of the best so far, for tokens side by side, one in each lane of a vector: by a sorting network, whose instructions
 * are the same whatever the candidates are. To be included once for each type of candidate, with
 *
 *   T        a vector of them
 *   BITS     of one of them
 *   LEAST    what is below all of them
 *   NAME(x)  what this type's functions are called
 */

#ifdef __AVX512F__ /* the general form below does not compile to these instructions */
#define OF_BITS(before, after) JOIN(JOIN(before, BITS), after)
INLINE T NAME(larger)(T a, T b)
{
    return (T)OF_BITS(_mm512_max_epi, )((__m512i)a, (__m512i)b);
}

INLINE T NAME(smaller)(T a, T b)
{
    return (T)OF_BITS(_mm512_min_epi, )((__m512i)a, (__m512i)b);
}

INLINE int NAME(any_larger)(T a, T b)
{
    return OF_BITS(_mm512_cmpgt_epi, _mask)((__m512i)a, (__m512i)b) != 0;
}
#undef OF_BITS
#else
INLINE T NAME(larger)(T a, T b)
{
    return ((a > b) & a) | (~(a > b) & b);
}

INLINE T NAME(smaller)(T a, T b)
{
    return ((a > b) & b) | (~(a > b) & a);
}

INLINE int NAME(any_larger)(T a, T b)
{
    int found = 0;
    T more = a > b;
    for (size_t i = 0; i < sizeof(T) * 8 / BITS; i++)
        found |= more[i] != 0;
    return found;
}
#endif

INLINE void NAME(sort_two)(T *a, T *b)
{
    T more = NAME(larger)(*a, *b);
    *b = NAME(smaller)(*a, *b);
    *a = more;
}

/* Eight, best first, by the shortest network (Knuth, volume 3, section 5.3.4). */
INLINE void NAME(sort_block)(T *x)
{
    static const char pairs[19][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 1}, {2, 3},
                                      {4, 5}, {6, 7}, {2, 4}, {3, 5}, {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
    #pragma GCC unroll 19
    for (int i = 0; i < 19; i++)
        NAME(sort_two)(&x[(int)pairs[i][0]], &x[(int)pairs[i][1]]);
}

/* Eight that rise and then fall, or fall and then rise, best first. */
INLINE void NAME(sort_bitonic)(T *x)
{
    #pragma GCC unroll 3
    for (int distance = BLOCK / 2; distance; distance /= 2)
        #pragma GCC unroll 8
        for (int i = 0; i < BLOCK; i++)
            if (!(i & distance))
                NAME(sort_two)(&x[i], &x[i + distance]);
}

/* Takes a block of candidates, in any order, into a list of the best so far, best first; its length in blocks. */
INLINE void NAME(take)(const T *candidates, T *list, int blocks)
{
    T best[BLOCK], most = candidates[0];
    for (int i = 1; i < BLOCK; i++)
        most = NAME(larger)(most, candidates[i]);
    if (!NAME(any_larger)(most, list[BLOCK * blocks - 1]))
        return;
    memcpy(best, candidates, sizeof best);
    NAME(sort_block)(best);
    for (int b = blocks - 1; b >= 0; b--) { /* from the end: the better ones go on, the others stay a block below */
        T rest[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            rest[i] = list[BLOCK * b + BLOCK - 1 - i];
        for (int i = 0; i < BLOCK; i++)
            NAME(sort_two)(&best[i], &rest[i]);
        NAME(sort_bitonic)(best);
        if (b + 1 < blocks) {
            NAME(sort_bitonic)(rest);
            memcpy(list + BLOCK * (b + 1), rest, sizeof rest);
        }
    }
    memcpy(list, best, sizeof best);
}

/* The best of `count` candidates, in any order; they have room up to a whole block. */
INLINE void NAME(best_of)(T *candidates, int count, T *list, int blocks)
{
    for (int p = 0; p < BLOCK * blocks; p++)
        list[p] = (T){0} + LEAST;
    for (int p = count; p % BLOCK; p++)
        candidates[p] = (T){0} + LEAST;
    for (int p = 0; p < count; p += BLOCK)
        NAME(take)(candidates + p, list, blocks);
}

#undef T
#undef BITS
#undef LEAST
#undef NAME

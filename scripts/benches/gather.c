/* As fast as this machine can: read, or read and write, rows at random. What a kernel is held against. */
#include <stdint.h>

enum { AHEAD = 16 }; /* rows that are fetched before their turn, to the second cache, as the kernels do */

/* Adds up whole rows (count of d floats) into one. */
void gather(const float *table, const int64_t *rows, int64_t count, int d, float *out)
{
    for (int64_t u = 0; u < count; u++) {
        if (u + AHEAD < count)
            for (int i = 0; i < d; i += 16)
                __builtin_prefetch(table + rows[u + AHEAD] * d + i, 0, 2);
        for (int i = 0; i < d; i++)
            out[i] += table[rows[u] * d + i];
    }
}

/* Adds a row of grads to a row of each table: of a alone, or of all three. */
void touch(float *a, float *b, float *c, const int64_t *rows, int64_t count, int d, const float *grads)
{
    float *tables[] = {a, b, c};
    int many = b ? 3 : 1;
    for (int64_t u = 0; u < count; u++)
        for (int table = 0; table < many; table++) {
            if (u + AHEAD < count)
                for (int i = 0; i < d; i += 16)
                    __builtin_prefetch(tables[table] + rows[u + AHEAD] * d + i, 0, 2);
            float *row = tables[table] + rows[u] * d;
            for (int i = 0; i < d; i++)
                row[i] += grads[u * d + i];
        }
}

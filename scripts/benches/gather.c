/* As fast as this machine can: read, or read and write, rows at random. What a kernel is held against. */
#include <stdint.h>

enum { AHEAD = 16 };

/* Adds up whole rows (count of d floats) into one. */
void gather(const float *table, const int64_t *rows, int64_t count, int d, float *out)
{
    for (int64_t u = 0; u < count; u++) {
        if (u + AHEAD < count)
            for (int i = 0; i < d; i += 16)
                __builtin_prefetch(table + rows[u + AHEAD] * d + i);
        for (int i = 0; i < d; i++)
            out[i] += table[rows[u] * d + i];
    }
}

/* Adds a row of grads to a row of each of three tables. */
void touch(float *a, float *b, float *c, const int64_t *rows, int64_t count, int d, const float *grads)
{
    for (int64_t u = 0; u < count; u++) {
        if (u + AHEAD < count)
            for (int i = 0; i < d; i += 16) {
                __builtin_prefetch(a + rows[u + AHEAD] * d + i);
                __builtin_prefetch(b + rows[u + AHEAD] * d + i);
                __builtin_prefetch(c + rows[u + AHEAD] * d + i);
            }
        for (int i = 0; i < d; i++) {
            a[rows[u] * d + i] += grads[u * d + i];
            b[rows[u] * d + i] += grads[u * d + i];
            c[rows[u] * d + i] += grads[u * d + i];
        }
    }
}

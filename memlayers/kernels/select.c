/* The k best sums of one row score and one column score, for each pair of rows of length n; exact.
 *
 * half: two x rows x n floats, rows first, columns second. Out: for each of `rows`, k row indices and k column
 * indices, best sum first; of equal half scores the lower index first. NaN ranks with +inf, at the top, where it is
 * seen.
 */
#include <stdint.h>
#include <math.h>

static float rank_of(float x)
{
    return isnan(x) ? INFINITY : x;
}

/* Keep the k largest of x[0..n), largest first, by insertion: after a few elements almost none gets in. */
static void best_of(const float *x, int n, int k, float *score, int32_t *index)
{
    int kept = 0;
    for (int e = 0; e < n; e++) {
        float v = rank_of(x[e]);
        if (kept == k && !(v > score[k - 1]))
            continue;
        int place = kept < k ? kept++ : k - 1;
        while (place > 0 && v > score[place - 1]) {
            score[place] = score[place - 1];
            index[place] = index[place - 1];
            place--;
        }
        score[place] = v;
        index[place] = e;
    }
}

void product_key_select(const float *half, int64_t rows, int n, int k, int64_t *out_row, int64_t *out_column)
{
    float a[k], b[k], best[k];
    int32_t ia[k], ib[k], pa[k], pb[k];
    for (int64_t r = 0; r < rows; r++) {
        best_of(half + r * n, n, k, a, ia);
        best_of(half + (rows + r) * n, n, k, b, ib);
        int kept = 0;
        for (int i = 0; i < k; i++) {
            for (int j = 0; (i + 1) * (j + 1) <= k; j++) {
                float v = rank_of(a[i] + b[j]);
                if (kept == k && !(v > best[k - 1]))
                    break; /* the columns after j are no better */
                int place = kept < k ? kept++ : k - 1;
                while (place > 0 && v > best[place - 1]) {
                    best[place] = best[place - 1];
                    pa[place] = pa[place - 1];
                    pb[place] = pb[place - 1];
                    place--;
                }
                best[place] = v;
                pa[place] = ia[i];
                pb[place] = ib[j];
            }
        }
        for (int p = 0; p < k; p++) {
            out_row[r * k + p] = pa[p];
            out_column[r * k + p] = pb[p];
        }
    }
}

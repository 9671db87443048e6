/* A symmetric tridiagonal operator for derand_fast's Lanczos; see c_pointer.py. */

#include <stddef.h>

/* What the context points to. */
struct path {
    const double *diagonal;      /* (n,) */
    const double *off_diagonal;  /* (n - 1,) */
};

/* y = H x. Returns 1 for success; any thread may call it. */
int path_product(const double *x, double *y, ptrdiff_t n, void *context) {
    const struct path *path = context;
    for (ptrdiff_t i = 0; i < n; i++) {
        y[i] = path->diagonal[i] * x[i];
        if (i > 0) y[i] += path->off_diagonal[i - 1] * x[i - 1];
        if (i < n - 1) y[i] += path->off_diagonal[i] * x[i + 1];
    }
    return 1;
}

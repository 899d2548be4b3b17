/* Row kernels: softmax and log_softmax along rows. */
static const fa_rows_kernels rows_kernels[FA_ROWS_COUNT] = {{0}};

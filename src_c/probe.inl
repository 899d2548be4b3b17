/* Bodies of probe.h. */

/* 8 chains cover the latency of 4 cycles at two operations a cycle; 10, 12 and 24 measure the same. */
#define PROBE_CHAINS 12

static fa_size probe_multiply_add(fa_size rounds, void *sink) {
  vec chain[PROBE_CHAINS];
  const vec factor = v_set1(*(const real *)sink); /* unknown to the compiler */
  FA_UNROLL for (int i = 0; i < PROBE_CHAINS; i++) chain[i] = v_set1((real)i);
  for (fa_size r = 0; r < rounds; r++)
    FA_UNROLL for (int i = 0; i < PROBE_CHAINS; i++) chain[i] = v_mac(chain[i], factor, factor);
  vec sum = v_zero();
  FA_UNROLL for (int i = 0; i < PROBE_CHAINS; i++) sum = v_add(sum, chain[i]);
  *(real *)sink = v_hsum(sum);
  return 2 * rounds * PROBE_CHAINS * VL;
}

static void probe_copy(void *to, const void *from, fa_size n, int stream) {
  real *out = to;
  const real *in = from;
  fa_size i = 0;
  if (stream && (uintptr_t)to % sizeof(vec) == 0)
    for (; i + VL <= n; i += VL) v_stream(out + i, v_load(in + i));
  else
    for (; i + VL <= n; i += VL) v_store(out + i, v_load(in + i));
  for (; i < n; i++) out[i] = in[i];
}

#define PROBE_KERNELS {.multiply_add = probe_multiply_add, .copy = probe_copy}

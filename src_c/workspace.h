/* Memory for workspaces: aligned to cache lines, large ones to huge pages (first touch of 52 MB costs 20 ms in pages of
 * 4 KB and 2.6 ms in huge ones). */
#ifndef FA_WORKSPACE_H
#define FA_WORKSPACE_H

#include <stddef.h>
#include <stdlib.h>

#ifdef _WIN32
#include <malloc.h>
static inline void *fa_workspace_alloc(size_t bytes) { return _aligned_malloc(bytes, 64); }
static inline void fa_workspace_free(void *p) { _aligned_free(p); }
#else
#ifdef __linux__
#include <sys/mman.h>
#endif
static inline void *fa_workspace_alloc(size_t bytes) {
  const size_t huge = (size_t)2 << 20;
  void *p = NULL;
  if (posix_memalign(&p, bytes >= huge ? huge : 64, bytes) != 0) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= huge) madvise(p, bytes, MADV_HUGEPAGE);
#endif
  return p;
}
static inline void fa_workspace_free(void *p) { free(p); }
#endif

#endif

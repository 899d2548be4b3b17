/* Which instruction set runs: detected once, lowered on request, read by every call through fa_active(). */
#ifndef FA_DISPATCH_H
#define FA_DISPATCH_H

#include "kernels.h"

enum { FA_FLOAT32 = 0, FA_FLOAT64 = 1, FA_DTYPES = 2 };

/* The active table of an element type. Selecting another set is safe at any time: running calls keep theirs. */
const fa_kernels *fa_active(int dtype);

int fa_isa_count(void);              /* sets compiled into this build, weakest first */
const char *fa_isa_name(int index);  /* "scalar", "avx2", ... */
int fa_isa_supported(int index);     /* whether this CPU and its operating system run it */
int fa_isa_active(void);             /* index of the active one */
int fa_isa_select(int index);        /* 0, or -1 if it is not supported */

#endif

#ifndef FA_RECURRENT_H
#define FA_RECURRENT_H

#include "config.h"

typedef struct {
  void (*placeholder)(void);
} fa_recurrent_kernels;

#endif

#ifndef FA_TRAINING_H
#define FA_TRAINING_H

#include "config.h"

typedef struct {
  void (*placeholder)(void);
} fa_training_kernels;

#endif

#ifndef FA_ACTIVATIONS_H
#define FA_ACTIVATIONS_H

#include "config.h"

typedef struct {
  void (*placeholder)(void);
} fa_activation_kernels;

#endif

#ifndef FA_PRODUCT_H
#define FA_PRODUCT_H

#include "config.h"

typedef struct {
  void (*placeholder)(void);
} fa_product_kernels;

#endif

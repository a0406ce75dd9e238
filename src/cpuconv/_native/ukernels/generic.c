#define UKERNELS ukernels_generic
#define VB 16
#include "kernels.c"

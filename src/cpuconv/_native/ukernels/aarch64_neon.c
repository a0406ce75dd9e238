#define UKERNELS ukernels_aarch64_neon
#define VB 16
#include "kernels.c"

#define ISA aarch64_neon_dotprod
#define VB 16
#include "int8.c"

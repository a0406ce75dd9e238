#define ISA x86_64_v3_vnni
#define VB 32
#include "int8.c"

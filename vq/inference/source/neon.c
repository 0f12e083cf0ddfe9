/* NEON, which all of AArch64 have: Cortex-A53, A72. */

#include "narrow.h"

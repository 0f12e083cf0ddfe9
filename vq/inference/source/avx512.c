/* AVX-512 with BW, DQ and VL: Skylake-X. */

#include "wide.h"

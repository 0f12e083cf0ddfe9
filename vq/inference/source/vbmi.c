/* AVX-512 with VNNI and VBMI: Ice Lake, Zen 4. */

#include "wide.h"

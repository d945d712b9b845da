#include "int8.inc.h"

/* First double: sums over paths are in double for both types. */
#define REAL_IS_DOUBLE 1
#include "table.inc.h"
#define REAL_IS_DOUBLE 0
#include "table.inc.h"

// One translation unit, so that the hooks are compiled together with the shadow memory they use.
#include "scheduler.cpp"
#include "shadow.cpp"
#include "hooks.cpp"
#include "bfloat.cpp"
#include "simdgroup_matrix.cpp"

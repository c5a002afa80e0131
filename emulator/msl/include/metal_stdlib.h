// A stand-in for Apple's <metal_stdlib> that clang compiles as C++ for the CPU. src/rewrite.rs has taken the address
// spaces and the attributes out of the source; what is left needs these types and functions.
// Section numbers are those of the Metal Shading Language Specification, version 3.2.
#pragma once
#include "emulator/abi.h"
#include "emulator/lane.h"
#include "metal/scalar.h"
#include "metal/vector.h"
#include "metal/packed_vector.h"
#include "metal/limits.h"
#include "metal/math.h"
#include "metal/common.h"
#include "metal/integer.h"
#include "metal/relational.h"
#include "metal/geometric.h"
#include "metal/matrix.h"
#include "metal/pack.h"
#include "metal/array.h"
#include "metal/atomic.h"
#include "metal/barrier.h"
#include "metal/simdgroup.h"
#include "metal/simdgroup_matrix.h"
#include "emulator/entry.h"

// <simd/simd.h> gives the same types under this name.
namespace simd {
using namespace metal;
}

// The address spaces of Metal are those of OpenCL, under other names.
#pragma once
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION __cl_clang_function_pointers : enable
#pragma OPENCL EXTENSION __cl_clang_variadic_functions : enable

#define device __global
#define constant __constant
#define threadgroup __local
#define thread __private
#define threadgroup_imageblock __local
#define ray_data __private
#define object_data __local

// Functions of every kind are plain functions here: what is special about them is checked by msl-check itself.
#define kernel
#define vertex
#define fragment

// Words that OpenCL has reserved and Metal has not.
#define local msl_local
#define global msl_global
#define generic msl_generic
#define read_only msl_read_only
#define write_only msl_write_only
#define read_write msl_read_write
#define pipe msl_pipe
#define vec_step msl_vec_step
#define atomic_bool msl_atomic_bool
#define atomic_flag msl_atomic_flag
#define atomic_float msl_atomic_float
#define atomic_int msl_atomic_int
#define atomic_uint msl_atomic_uint
#define atomic_long msl_atomic_long
#define atomic_ulong msl_atomic_ulong

// A declaration for each address space in which an object can lie.
#define MSL_EACH_SPACE(DECLARE) DECLARE(device) DECLARE(constant) DECLARE(threadgroup) DECLARE(thread)
// The same for those that can be written.
#define MSL_EACH_WRITABLE_SPACE(DECLARE) DECLARE(device) DECLARE(threadgroup) DECLARE(thread)
// And for those that threads share.
#define MSL_EACH_SHARED_SPACE(DECLARE) DECLARE(device) DECLARE(threadgroup)

namespace msl {
// A threadgroup variable of a kernel is declared as a reference to something of its type that is somewhere else:
// OpenCL allows such variables in the outermost scope of functions that are no templates only.
struct threadgroup_memory {
  template <class T> operator threadgroup T &() const;
};
}  // namespace msl

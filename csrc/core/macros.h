// Compiler differences, in one place.
#pragma once

// RESTORERT_HD: a function that host and device code share.
#if defined(__CUDACC__)
#define RESTORERT_HD __host__ __device__ __forceinline__
#else
#define RESTORERT_HD inline
#endif

// RESTORERT_MULTIVERSION: compile a function for several x86-64 levels and pick one when the
// library is loaded, so that one wheel uses AVX-512 where there is AVX-512. CMake defines
// RESTORERT_HAS_TARGET_CLONES after checking that compiler, linker and C library can do it.
// The levels are written as architecture levels because "avx2" alone has neither FMA nor F16C.
#if defined(RESTORERT_HAS_TARGET_CLONES) && !defined(__CUDACC__)
#define RESTORERT_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RESTORERT_MULTIVERSION
#endif

// RESTORERT_LANES: before a loop over a short array of accumulators. It is to become vector
// instructions on registers; GCC would otherwise unroll it into scalars before it looks for
// vectors.
#if defined(__GNUC__) && !defined(__clang__)
#define RESTORERT_LANES _Pragma("GCC unroll 1")
#else
#define RESTORERT_LANES
#endif

// A stand-in for CUDA's header that runs kernels on the CPU, so that their index arithmetic, their
// barriers and their results are tested on machines that have no GPU. Included before CUDA's own
// by the target _native_emulated alone.
//
// Blocks run one after the other; the threads of a block are fibers that change at barriers and
// shuffles only. What it cannot show: data races between barriers, memory ordering between blocks,
// the rounding of the device's fast instructions, speed.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
// One block at a time, so what a block shares is one static object.
#define __shared__ static

struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
      : x(width), y(height), z(depth) {}
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "refused by the emulator";
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 132;
  return cudaSuccess;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Fiber {
  ucontext_t context{};
  bool done = false;
  std::vector<char> stack = std::vector<char>(1 << 16);
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline unsigned current = 0;
inline unsigned live = 0;        // threads of the block that have not returned
inline unsigned arrived = 0;     // at the block's barrier
inline unsigned generation = 0;  // of the block's barrier
inline unsigned warp_live[32];   // the same for each warp's
inline unsigned warp_arrived[32];
inline unsigned warp_generation[32];
inline unsigned char exchanged[1024][8];

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s\n", what);
  std::abort();
}

inline void pause() {
  const unsigned self = current;
  swapcontext(&fibers[self].context, &scheduler);
}

inline void sync_block() {
  const unsigned mine = generation;
  if (++arrived == live) {
    arrived = 0;
    ++generation;
  } else {
    while (generation == mine) pause();
  }
}

inline void sync_warp() {
  const unsigned warp = current / 32;
  const unsigned mine = warp_generation[warp];
  if (++warp_arrived[warp] == warp_live[warp]) {
    warp_arrived[warp] = 0;
    ++warp_generation[warp];
  } else {
    while (warp_generation[warp] == mine) pause();
  }
}

inline void run_thread() {
  body();
  fibers[current].done = true;
  swapcontext(&fibers[current].context, &scheduler);
}

// CUDA lets the threads that have returned count as arrived.
inline void leave(unsigned thread) {
  --live;
  if (live > 0 && arrived == live) {
    arrived = 0;
    ++generation;
  }
  const unsigned warp = thread / 32;
  if (--warp_live[warp] > 0 && warp_arrived[warp] == warp_live[warp]) {
    warp_arrived[warp] = 0;
    ++warp_generation[warp];
  }
}

inline unsigned setting(const char* name, unsigned otherwise) {
  const char* text = std::getenv(name);
  return text ? static_cast<unsigned>(std::atoi(text)) : otherwise;
}

inline void run_block(unsigned threads, bool reverse) {
  arrived = 0;
  live = threads;
  for (unsigned warp = 0; warp < 32; ++warp) {
    warp_arrived[warp] = 0;
    const unsigned begin = warp * 32;
    warp_live[warp] = threads > begin ? (threads - begin < 32 ? threads - begin : 32) : 0;
  }
  for (unsigned thread = 0; thread < threads; ++thread) {
    Fiber& fiber = fibers[thread];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_thread, 0);
  }
  for (std::uint64_t rounds = 0; live > 0; ++rounds) {
    if (rounds > 1000000) fail("threads wait at different barriers");
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned thread = reverse ? threads - 1 - i : i;
      if (fibers[thread].done) continue;
      current = thread;
      threadIdx = dim3(thread % blockDim.x, thread / blockDim.x % blockDim.y,
                       thread / (blockDim.x * blockDim.y));
      swapcontext(&scheduler, &fibers[thread].context);
      if (fibers[thread].done) leave(thread);
    }
  }
}

template <typename T>
T exchange(T value, unsigned from, bool valid) {
  static_assert(sizeof(T) <= sizeof(exchanged[0]));
  std::memcpy(exchanged[current], &value, sizeof(T));
  sync_warp();
  T result = value;
  if (valid) std::memcpy(&result, exchanged[current / 32 * 32 + from], sizeof(T));
  sync_warp();
  return result;
}

}  // namespace emulator

inline void __syncthreads() {
  emulator::sync_block();
}
inline void __syncwarp(unsigned = 0xffffffffU) {
  emulator::sync_warp();
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane, int width = 32) {
  const unsigned base = emulator::current % 32 / static_cast<unsigned>(width);
  const auto from = base * static_cast<unsigned>(width) + static_cast<unsigned>(lane % width);
  return emulator::exchange(value, from, true);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::current % 32;
  const auto size = static_cast<unsigned>(width);
  return emulator::exchange(value, lane + delta, lane % size + delta < size);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::current % 32;
  return emulator::exchange(value, lane - delta, lane % static_cast<unsigned>(width) >= delta);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
  const unsigned lane = emulator::current % 32;
  const unsigned from = lane ^ static_cast<unsigned>(mask);
  const auto size = static_cast<unsigned>(width);
  return emulator::exchange(value, from, from / size == lane / size);
}

namespace emulator {
template <typename T>
void check_aligned(const T* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignof(T) != 0) fail("misaligned access");
}
}  // namespace emulator

template <typename T>
T __ldcs(const T* address) {
  emulator::check_aligned(address);
  return *address;
}
template <typename T>
T __ldg(const T* address) {
  return __ldcs(address);
}
template <typename T>
T __ldcg(const T* address) {
  return __ldcs(address);
}
template <typename T>
void __stcs(T* address, T value) {
  emulator::check_aligned(address);
  *address = value;
}
template <typename T>
void __stcg(T* address, T value) {
  __stcs(address, value);
}

inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __frcp_rn(float a) {
  return 1.0F / a;
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
inline float __expf(float a) {
  return std::exp(a);
}
inline float __logf(float a) {
  return std::log(a);
}
inline float rsqrtf(float a) {
  return 1.0F / std::sqrt(a);
}
inline float __saturatef(float a) {
  return a < 0.0F ? 0.0F : (a > 1.0F ? 1.0F : a);
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

// RESTORERT_EMULATOR_REVERSE=1 runs blocks and threads backwards; RESTORERT_EMULATOR_MAX_BLOCKS
// caps the grid, so that the kernels' loops over work items run more than once.
template <typename... Parameters, typename... Values>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Values... values) {
  const unsigned threads = config->blockDim.x * config->blockDim.y * config->blockDim.z;
  if (threads == 0 || threads > 1024 || config->gridDim.x == 0 || config->dynamicSmemBytes > 0) {
    return cudaErrorInvalidConfiguration;
  }
  const bool reverse = emulator::setting("RESTORERT_EMULATOR_REVERSE", 0) != 0;
  const unsigned cap = emulator::setting("RESTORERT_EMULATOR_MAX_BLOCKS", ~0U);
  blockDim = config->blockDim;
  gridDim = config->gridDim;
  if (gridDim.x > cap) gridDim.x = cap;
  if (emulator::fibers.size() < threads) emulator::fibers.resize(threads);
  emulator::body = [&] { kernel(values...); };
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  for (unsigned i = 0; i < blocks; ++i) {
    const unsigned block = reverse ? blocks - 1 - i : i;
    blockIdx =
        dim3(block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y));
    emulator::run_block(threads, reverse);
  }
  return cudaSuccess;
}

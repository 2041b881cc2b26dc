// Device building blocks: packs of 16 bytes, merging moments over a block, launching.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "core/moments.h"
#include "core/partition.h"
#include "core/scalar.h"
#include "core/status.h"

namespace restorert {

// What kernels take of a Picture.
struct Shape {
  std::int64_t images;
  std::int64_t channels;
  std::int64_t pixels;
};

// V neighbouring elements that one thread loads or stores at once.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
};

namespace detail {

template <int kBytes>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<2> {
  using type = unsigned short;
};

}  // namespace detail

// A load that leaves the line in the caches, for data that is read again soon.
template <typename T, int V>
__device__ __forceinline__ Pack<T, V> load(const T* address) {
  using Word = typename detail::Word<sizeof(T) * V>::type;
  const Word word = *reinterpret_cast<const Word*>(address);
  Pack<T, V> pack;
  memcpy(&pack, &word, sizeof(pack));
  return pack;
}

// A load and a store of data that is not touched again: first to be evicted.
template <typename T, int V>
__device__ __forceinline__ Pack<T, V> load_once(const T* address) {
  using Word = typename detail::Word<sizeof(T) * V>::type;
  const Word word = __ldcs(reinterpret_cast<const Word*>(address));
  Pack<T, V> pack;
  memcpy(&pack, &word, sizeof(pack));
  return pack;
}

template <typename T, int V>
__device__ __forceinline__ void store_once(T* address, const Pack<T, V>& pack) {
  using Word = typename detail::Word<sizeof(T) * V>::type;
  Word word;
  memcpy(&word, &pack, sizeof(word));
  __stcs(reinterpret_cast<Word*>(address), word);
}

// V neighbouring floats; the address is a multiple of 16 where V is one of 4.
template <int V>
__device__ __forceinline__ void load_floats(float (&values)[V], const float* address) {
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int j = 0; j < V; j += 4) {
      const float4 word = *reinterpret_cast<const float4*>(address + j);
      values[j] = word.x;
      values[j + 1] = word.y;
      values[j + 2] = word.z;
      values[j + 3] = word.w;
    }
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j) values[j] = address[j];
  }
}

// Adds up the values of a warp's threads, always in the same order; lane 0 has the sum.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xffffffffU, value, offset);
  }
  return value;
}

// Adds up the values of a block's threads, always in the same order; thread 0 has the sum. All
// threads take part; blockDim.x is a multiple of 32, at most 1024.
__device__ __forceinline__ float block_sum(float value) {
  __shared__ float warps[32];
  const unsigned lane = threadIdx.x % 32;
  const unsigned warp = threadIdx.x / 32;
  value = warp_sum(value);
  __syncthreads();  // an earlier call's sums have been read
  if (lane == 0) warps[warp] = value;
  __syncthreads();
  if (warp == 0) value = warp_sum(lane < blockDim.x / 32 ? warps[lane] : 0.0F);
  return value;
}

// Adds up V numbers a thread over the `rows` rows of a block, rows of `lanes` threads each, always
// in the same order; the threads of row 0 have the sums. All threads take part, kThreads of them,
// and those that are not `active` add nothing.
template <int V>
__device__ __forceinline__ void sum_rows(float (&sums)[V], float (&shared)[V][kThreads], int row,
                                         int rows, int lanes, bool active) {
  const int tid = static_cast<int>(threadIdx.x);
  __syncthreads();  // an earlier call's sums have been read
#pragma unroll
  for (int j = 0; j < V; ++j) shared[j][tid] = sums[j];
  __syncthreads();
  // Halve the rows until one is left. kThreads / 2 starts above half of any number of rows.
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (active && row < step && row + step < rows) {
      const int other = tid + step * lanes;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sums[j] += shared[j][other];
        shared[j][tid] = sums[j];
      }
    }
    __syncthreads();
  }
}

// core/moments.h's merge with the device's fast division; counts stay far below 2^126.
__device__ __forceinline__ Moments<float> merge_fast(const Moments<float>& a,
                                                     const Moments<float>& b) {
  const float count = a.count + b.count;
  if (count == 0.0F) return a;
  const float share = __fdividef(b.count, count);
  float mean = a.mean;
  const float between = merge_means(mean, b.mean, share, a.count * share);
  return {count, mean, a.m2 + b.m2 + between};
}

// Merges the moments of a warp's threads, always in the same order. Lane 0 has the result; what the
// upper lanes have is of no use.
__device__ __forceinline__ Moments<float> warp_merge(Moments<float> moments) {
  constexpr unsigned kAll = 0xffffffffU;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Moments<float> other{__shfl_down_sync(kAll, moments.count, offset),
                               __shfl_down_sync(kAll, moments.mean, offset),
                               __shfl_down_sync(kAll, moments.m2, offset)};
    moments = merge_fast(moments, other);
  }
  return moments;
}

// Merges the moments of all threads of a block, always in the same order, and gives every thread
// the result. All threads take part; blockDim.x is a multiple of 32, at most 1024.
__device__ __forceinline__ Moments<float> block_merge(Moments<float> moments) {
  __shared__ Moments<float> warps[32];
  __shared__ Moments<float> total;
  const unsigned lane = threadIdx.x % 32;
  const unsigned warp = threadIdx.x / 32;
  moments = warp_merge(moments);
  __syncthreads();  // an earlier call's result has been read
  if (lane == 0) warps[warp] = moments;
  __syncthreads();
  if (warp == 0) {
    moments = warp_merge(lane < blockDim.x / 32 ? warps[lane] : Moments<float>{0.0F, 0.0F, 0.0F});
    if (lane == 0) total = moments;
  }
  __syncthreads();
  return total;
}

// The same number, but the compiler cannot know it. What is computed from it is computed again
// where it is used, instead of being kept in registers from an earlier use.
__device__ __forceinline__ int recompute(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Makes a device current for the lifetime of the guard; index -1 leaves the current one.
class DeviceGuard {
 public:
  explicit DeviceGuard(int index) {
    if (index < 0) return;
    error_ = cudaGetDevice(&previous_);
    if (error_ != cudaSuccess || previous_ == index) return;
    error_ = cudaSetDevice(index);
    restore_ = error_ == cudaSuccess;
  }
  ~DeviceGuard() {
    if (restore_) static_cast<void>(cudaSetDevice(previous_));
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  cudaError_t error() const { return error_; }

 private:
  int previous_ = 0;
  bool restore_ = false;
  cudaError_t error_ = cudaSuccess;
};

// "<op>: <what> failed: <CUDA's message>". Takes the error out of CUDA's per-thread error state.
inline Status cuda_status(const char* op, const char* what, cudaError_t error) {
  if (error == cudaSuccess) return {};
  static_cast<void>(cudaGetLastError());
  return {StatusCode::kCudaError,
          std::string(op) + ": " + what + " failed: " + cudaGetErrorString(error)};
}

// Calls `launches`, which returns the error of its launches, with the CUDA device `index` current.
template <typename Function>
Status launch_on(const char* op, int index, const Function& launches) {
  const DeviceGuard guard(index);
  if (guard.error() != cudaSuccess) {
    return cuda_status(op, "selecting the CUDA device", guard.error());
  }
  return cuda_status(op, "launching the CUDA kernels", launches());
}

// Launches `kernel` with `blocks` x `threads` and returns this launch's own error, not an older
// one.
template <typename... Parameters, typename... Values>
cudaError_t launch(void (*kernel)(Parameters...), std::int64_t blocks, int threads,
                   cudaStream_t stream, Values... values) {
  // Kernels loop over their work items, so capping the grid is always right.
  constexpr std::int64_t kMaxBlocks = 0x7fffffff;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), 1, 1);
  config.blockDim = dim3(static_cast<unsigned>(threads), 1, 1);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, values...);
}

}  // namespace restorert

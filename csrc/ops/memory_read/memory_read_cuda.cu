// MemoryNet's three reads on CUDA: one kernel. A block takes 512 pixels, two a thread, through the
// reads one after the other; the memory of the read at hand lies in shared memory, from where all
// threads take the same row at once, and each row serves two pixels. The dot products are computed
// again for the largest logit, the sum and the weighted sum, because 100 weights a pixel have no
// place but memory. The arithmetic is what costs time here, not the 4 C numbers a pixel.
#include "core/device.cuh"
#include "core/partition.h"
#include "ops/memory_read/memory_read.h"

namespace restorert::memory_read {
namespace {

constexpr int kPixels = 2;  // a thread's
constexpr std::int64_t kTile = static_cast<std::int64_t>(kThreads) * kPixels;

struct Shape {
  std::int64_t images;
  std::int64_t channels;
  std::int64_t pixels;
  bool planes;  // NCHW
  float shrink;
};

// A prototype in shared memory takes whole float4.
template <int C>
constexpr int kWords = (C + 3) / 4;

template <int C>
__device__ __forceinline__ void load_row(float (&row)[C], const float4* memory, int k) {
#pragma unroll
  for (int w = 0; w < kWords<C>; ++w) {
    const float4 word = memory[k * kWords<C> + w];
    row[4 * w] = word.x;
    if (4 * w + 1 < C) row[4 * w + 1] = word.y;
    if (4 * w + 2 < C) row[4 * w + 2] = word.z;
    if (4 * w + 3 < C) row[4 * w + 3] = word.w;
  }
}

template <int C>
__device__ __forceinline__ float dot(const float (&a)[C], const float (&b)[C]) {
  float sum = a[0] * b[0];
#pragma unroll
  for (int c = 1; c < C; ++c) sum = fmaf(a[c], b[c], sum);
  return sum;
}

// One read of a thread's pixels, in place.
template <int C>
__device__ __forceinline__ void read_pixels(float (&query)[kPixels][C], const float4* memory,
                                            int prototypes, float shrink) {
  float largest[kPixels];
  float sum[kPixels];
  float kept[kPixels];
  float total[kPixels][C];
  float row[C];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    largest[i] = -INFINITY;
    sum[i] = kept[i] = 0.0F;
#pragma unroll
    for (int c = 0; c < C; ++c) total[i][c] = 0.0F;
  }
#pragma unroll 4
  for (int k = 0; k < prototypes; ++k) {
    load_row<C>(row, memory, k);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) largest[i] = fmaxf(largest[i], dot<C>(query[i], row));
  }
#pragma unroll 4
  for (int k = 0; k < prototypes; ++k) {
    load_row<C>(row, memory, k);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      sum[i] += exp_of_negative(dot<C>(query[i], row) - largest[i]);
    }
  }
#pragma unroll 2
  for (int k = 0; k < prototypes; ++k) {
    load_row<C>(row, memory, k);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const float weight = exp_of_negative(dot<C>(query[i], row) - largest[i]);
      const float left = hard_shrink(weight, shrink * sum[i]);
      kept[i] += left;
#pragma unroll
      for (int c = 0; c < C; ++c) total[i][c] = fmaf(left, row[c], total[i][c]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const float scale = normalizer(kept[i], sum[i]);
#pragma unroll
    for (int c = 0; c < C; ++c) query[i][c] = total[i][c] * scale;
  }
}

struct Stages {
  const float* memory[3];
  int prototypes[3];
};

template <typename T>
struct Outputs {
  T* out[3];
};

// One block a tile of kTile pixels of one image.
template <typename T, int C>
__global__ void __launch_bounds__(kThreads)
    read_memories(const T* x, Stages stages, Outputs<T> outputs, Shape shape) {
  __shared__ float4 memory[kMaxPrototypes * kWords<C>];
  const int channels = static_cast<int>(shape.channels);
  const std::int64_t channel_step = shape.planes ? shape.pixels : 1;
  const std::int64_t pixel_step = shape.planes ? 1 : shape.channels;
  const std::int64_t tiles = (shape.pixels + kTile - 1) / kTile;
  const std::int64_t items = shape.images * tiles;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t image = item / tiles * shape.channels * shape.pixels;
    const std::int64_t first = item % tiles * kTile + threadIdx.x;
    float query[kPixels][C];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const std::int64_t pixel = first + i * kThreads;
#pragma unroll
      for (int c = 0; c < C; ++c) {
        query[i][c] = 0.0F;
        if (pixel < shape.pixels && c < channels) {
          query[i][c] = to_float(x[image + pixel * pixel_step + c * channel_step]);
        }
      }
    }
#pragma unroll
    for (int s = 0; s < 3; ++s) {
      const int prototypes = stages.prototypes[s];
      __syncthreads();  // the last memory has been read
      auto* words = reinterpret_cast<float*>(memory);
      for (int at = static_cast<int>(threadIdx.x); at < prototypes * 4 * kWords<C>;
           at += kThreads) {
        const int k = at / (4 * kWords<C>);
        const int c = at % (4 * kWords<C>);
        words[at] = c < channels ? stages.memory[s][k * channels + c] : 0.0F;
      }
      __syncthreads();
      read_pixels<C>(query, memory, prototypes, shape.shrink);
#pragma unroll
      for (int i = 0; i < kPixels; ++i) {
        const std::int64_t pixel = first + i * kThreads;
#pragma unroll
        for (int c = 0; c < C; ++c) {
          if (pixel < shape.pixels && c < channels) {
            outputs.out[s][image + pixel * pixel_step + c * channel_step] =
                from_float<T>(query[i][c]);
          }
        }
      }
    }
  }
}

template <typename T, int C>
cudaError_t run(const Problem& problem, cudaStream_t stream) {
  Stages stages;
  Outputs<T> outputs;
  for (int s = 0; s < 3; ++s) {
    const Stage& stage = problem.stages[static_cast<std::size_t>(s)];
    stages.memory[s] = stage.memory;
    stages.prototypes[s] = static_cast<int>(stage.prototypes);
    outputs.out[s] = static_cast<T*>(stage.out);
  }
  const Shape shape{problem.images, problem.channels, problem.pixels,
                    problem.layout == Layout::kNCHW, problem.shrink};
  return launch(read_memories<T, C>, problem.images * ceil_div(problem.pixels, kTile), kThreads,
                stream, static_cast<const T*>(problem.x), stages, outputs, shape);
}

}  // namespace

Status run_cuda(const Problem& problem, void* /*workspace*/, std::size_t /*workspace_size*/,
                void* stream) {
  if (problem.empty()) return {};
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  return launch_on(kName, problem.device_index, [&] {
    return dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return dispatch_channels<cudaError_t>(problem.channels, [&](auto channels) {
        return run<T, decltype(channels)::value>(problem, cuda_stream);
      });
    });
  });
}

}  // namespace restorert::memory_read

// The simple gate with its mean on CUDA: a kernel that reads x and writes y once and leaves one sum
// a slab and channel in the workspace, [image][slab][channel], then a small one that merges the
// slabs.
//
// A thread sums few products one after the other; the rest is trees. Every sum happens in an order
// that the shape fixes, so results repeat bit for bit.
#include "core/check.h"
#include "core/device.cuh"
#include "core/dispatch.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace restorert::simple_gate_mean {
namespace {

// Products of a pair of packs, which are added to `sums` as well.
template <typename T, int V>
__device__ __forceinline__ Pack<T, V> multiply(const Pack<T, V>& first, const Pack<T, V>& second,
                                               float (&sums)[V]) {
  Pack<T, V> result;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const float y = to_float(first.v[j]) * to_float(second.v[j]);
    result.v[j] = from_float<T>(y);
    sums[j] += y;
  }
  return result;
}

// NCHW. One block a slab of a plane.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    multiply_planes(const T* x, T* out, Shape shape, Split split, float* partials) {
  constexpr std::int64_t kStride = static_cast<std::int64_t>(kThreads) * V;
  const std::int64_t items = shape.images * shape.channels * split.count;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t plane = item / split.count;
    const std::int64_t slab = item % split.count;
    const std::int64_t image = plane / shape.channels;
    const T* first = x + (plane + image * shape.channels) * shape.pixels;
    const T* second = first + shape.channels * shape.pixels;
    T* to = out + plane * shape.pixels;
    const std::int64_t begin = slab * split.size;
    const std::int64_t end = begin + split.size < shape.pixels ? begin + split.size : shape.pixels;
    float sums[V];
#pragma unroll
    for (int j = 0; j < V; ++j) sums[j] = 0.0F;
    for (std::int64_t base = begin + static_cast<std::int64_t>(threadIdx.x) * V; base < end;
         base += kStride * kBatch) {
      Pack<T, V> a[kBatch];
      Pack<T, V> b[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const std::int64_t at = base + i * kStride;
        if (at < end) {
          a[i] = load_once<T, V>(first + at);
          b[i] = load_once<T, V>(second + at);
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const std::int64_t at = base + i * kStride;
        if (at < end) store_once(to + at, multiply(a[i], b[i], sums));
      }
    }
    float sum = 0.0F;
#pragma unroll
    for (int j = 0; j < V; ++j) sum += sums[j];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
      partials[(image * split.count + slab) * shape.channels + plane % shape.channels] = sum;
    }
  }
}

// NHWC. One block a slab of pixels and a block of channels; a thread keeps V channels and walks
// over pixels.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    multiply_pixels(const T* x, T* out, Shape shape, Split split, ChannelTile tile,
                    float* partials) {
  __shared__ float shared[V][kThreads];
  const int tid = static_cast<int>(threadIdx.x);
  const int lanes = static_cast<int>(tile.lanes);
  const int rows = static_cast<int>(tile.rows);
  const int lane = tid % lanes;
  const int row = tid / lanes;
  const std::int64_t items = shape.images * split.count * tile.blocks;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t slab = (item / tile.blocks) % split.count;
    const std::int64_t image = item / (tile.blocks * split.count);
    const std::int64_t channel = ((item % tile.blocks) * lanes + lane) * V;
    const bool active = row < rows && channel < shape.channels;
    const std::int64_t begin = slab * split.size;
    const std::int64_t end = begin + split.size < shape.pixels ? begin + split.size : shape.pixels;
    float sums[V];
#pragma unroll
    for (int j = 0; j < V; ++j) sums[j] = 0.0F;
    if (active) {
      const T* first = x + image * shape.pixels * 2 * shape.channels + channel;
      const T* second = first + shape.channels;
      T* to = out + image * shape.pixels * shape.channels + channel;
      for (std::int64_t base = begin + row; base < end;
           base += static_cast<std::int64_t>(rows) * kBatch) {
        Pack<T, V> a[kBatch];
        Pack<T, V> b[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const std::int64_t pixel = base + i * rows;
          if (pixel < end) {
            a[i] = load_once<T, V>(first + pixel * 2 * shape.channels);
            b[i] = load_once<T, V>(second + pixel * 2 * shape.channels);
          }
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const std::int64_t pixel = base + i * rows;
          if (pixel < end) {
            store_once(to + pixel * shape.channels, multiply(a[i], b[i], sums));
          }
        }
      }
    }
    sum_rows(sums, shared, row, rows, lanes, active);
    if (active && row == 0) {
      float* partial = partials + (image * split.count + slab) * shape.channels + channel;
#pragma unroll
      for (int j = 0; j < V; ++j) partial[j] = sums[j];
    }
  }
}

// One block eight neighbouring channels (32 bytes) of an image: merges the slabs. No slabs give
// 0 / 0, as an empty mean is.
constexpr int kMergeLanes = 8;

__global__ void __launch_bounds__(kThreads)
    merge_slabs(Shape shape, std::int64_t slabs, const float* partials, float* mean) {
  __shared__ float shared[kThreads];
  constexpr int kRows = kThreads / kMergeLanes;
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / kMergeLanes;
  const std::int64_t groups = (shape.channels + kMergeLanes - 1) / kMergeLanes;
  const std::int64_t items = shape.images * groups;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t image = item / groups;
    const std::int64_t channel = (item % groups) * kMergeLanes + tid % kMergeLanes;
    const bool active = channel < shape.channels;
    float sum = 0.0F;
    if (active) {
      const float* column = partials + image * slabs * shape.channels + channel;
#pragma unroll 8
      for (std::int64_t slab = row; slab < slabs; slab += kRows) {
        sum += column[slab * shape.channels];
      }
    }
    __syncthreads();  // an earlier item's sums have been read
    shared[tid] = sum;
    __syncthreads();
    for (int step = kRows / 2; step > 0; step /= 2) {
      if (row < step) {
        sum += shared[tid + step * kMergeLanes];
        shared[tid] = sum;
      }
      __syncthreads();
    }
    if (active && row == 0) {
      mean[image * shape.channels + channel] = sum / static_cast<float>(shape.pixels);
    }
  }
}

template <typename T, int V>
cudaError_t run(const Problem& problem, Layout layout, const Shape& shape, float* partials,
                cudaStream_t stream) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  cudaError_t error = cudaSuccess;
  Split split{};
  if (layout == Layout::kNCHW) {
    split = split_planes(shape.pixels, sizeof(T));
    error = launch(multiply_planes<T, V>, shape.images * shape.channels * split.count, kThreads,
                   stream, x, out, shape, split, partials);
  } else {
    split = split_pixels(shape.pixels, shape.channels, sizeof(T));
    const ChannelTile tile = tile_channels(shape.channels / V);
    error = launch(multiply_pixels<T, V>, shape.images * split.count * tile.blocks, kThreads,
                   stream, x, out, shape, split, tile, partials);
  }
  if (error != cudaSuccess) return error;
  return launch(merge_slabs, shape.images * ceil_div(shape.channels, kMergeLanes), kThreads, stream,
                shape, split.count, static_cast<const float*>(partials), problem.mean);
}

}  // namespace

Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream) {
  if (problem.images == 0 || problem.channels == 0) return {};
  RESTORERT_RETURN_IF_ERROR(
      check_workspace_memory(kName, workspace, workspace_size, cuda_workspace_size(problem)));
  const Shape shape{problem.images, problem.channels, problem.pixels};
  auto* partials = static_cast<float*>(workspace);
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  // One pixel an image is NHWC as well, with the same workspace, and its channels are neighbours.
  const Layout layout = problem.pixels == 1 ? Layout::kNHWC : problem.layout;
  const std::int64_t line = layout == Layout::kNCHW ? problem.pixels : problem.channels;
  return launch_on(kName, problem.device_index, [&] {
    if (problem.pixels == 0) {
      const std::int64_t blocks = shape.images * ceil_div(shape.channels, kMergeLanes);
      return launch(merge_slabs, blocks, kThreads, cuda_stream, shape, std::int64_t{0},
                    static_cast<const float*>(nullptr), problem.mean);
    }
    return dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));
      const bool vectors = splits_into(kVectorBytes, line * sizeof(T), {problem.x, problem.out});
      return vectors ? run<T, kLanes>(problem, layout, shape, partials, cuda_stream)
                     : run<T, 1>(problem, layout, shape, partials, cuda_stream);
    });
  });
}

}  // namespace restorert::simple_gate_mean

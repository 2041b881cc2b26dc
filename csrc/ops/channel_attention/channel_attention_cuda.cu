// Channel attention on CUDA: a kernel that sums slabs of r into the workspace, one that makes the
// scales of all channels (merges the slabs, then both small products), one that writes the result.
// Where the pictures are small, each block of the last one makes the scales for itself: two
// launches. With `sums` the first one is left out.
//
// Every sum is taken in an order that the shape fixes, so results repeat bit for bit.
#include "core/check.h"
#include "core/device.cuh"
#include "ops/channel_attention/channel_attention.h"

namespace restorert::channel_attention {
namespace {

constexpr int kBlocks = 3;                  // resident on one multiprocessor: 80 registers a thread
constexpr int kExciteThreads = 1024;        // of the block that makes one picture's scales
constexpr int kHidden = 256;                // hidden numbers that are kept at once
constexpr std::int64_t kFewBlocks = 512;    // so few that every one may make the scales for itself
constexpr std::int64_t kFewChannels = 512;  // the same, since it keeps them in shared memory
constexpr std::int64_t kFewSums = 16384;    // the same, since it reads them all: slabs * channels

struct Weights {
  Parameter w_down;
  Parameter w_up;
  Parameter b_down;
  Parameter b_up;
  std::int64_t hidden;
};

__device__ __forceinline__ float load_of(const Parameter& parameter, std::int64_t index) {
  return load_parameter(parameter.data, parameter.dtype, index);
}

// ---- from sums to scales ----

// The scales of one picture's channels, from sums[slab * channels + c]. All threads of the block
// take part; `means` is room for as many numbers as `scales`. Both may be any memory.
__device__ __forceinline__ void make_scales(const Shape& shape, const Weights& weights,
                                            std::int64_t slabs, const float* sums, float* means,
                                            float* scales) {
  __shared__ float shared[kExciteThreads];
  __shared__ float hidden[kHidden];
  const int tid = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);

  // Neighbouring threads take neighbouring channels, `rows` groups of them different slabs.
  const int lanes = shape.channels < threads ? static_cast<int>(shape.channels) : threads;
  const int rows = threads / lanes;
  const int lane = tid % lanes;
  const int row = tid / lanes;
  int widest = 1;
  while (2 * widest < rows) widest *= 2;
  for (std::int64_t base = 0; base < shape.channels; base += lanes) {
    const std::int64_t channel = base + lane;
    const bool active = row < rows && channel < shape.channels;
    float sum = 0.0F;
    if (active) {
#pragma unroll 8
      for (std::int64_t slab = row; slab < slabs; slab += rows) {
        sum += sums[slab * shape.channels + channel];
      }
    }
    shared[tid] = sum;
    __syncthreads();
    for (int step = widest; step > 0; step /= 2) {
      if (active && row < step && row + step < rows) {
        sum += shared[tid + step * lanes];
        shared[tid] = sum;
      }
      __syncthreads();
    }
    if (active && row == 0) means[channel] = sum / static_cast<float>(shape.pixels);
  }
  __syncthreads();

  const int warp = tid / 32;
  const int warp_lane = tid % 32;
  for (std::int64_t first = 0; first < weights.hidden; first += kHidden) {
    const std::int64_t rest = weights.hidden - first;
    const int count = rest < kHidden ? static_cast<int>(rest) : kHidden;
    // A warp a hidden number.
    for (int j = warp; j < count; j += threads / 32) {
      const std::int64_t line = (first + j) * shape.channels;
      float sum = 0.0F;
#pragma unroll 4
      for (std::int64_t c = warp_lane; c < shape.channels; c += 32) {
        sum = fmaf(load_of(weights.w_down, line + c), means[c], sum);
      }
      sum = warp_sum(sum);
      if (warp_lane == 0) {
        if (weights.b_down.data != nullptr) sum += load_of(weights.b_down, first + j);
        hidden[j] = relu(sum);
      }
    }
    __syncthreads();
    // A thread a channel.
    for (std::int64_t c = tid; c < shape.channels; c += threads) {
      float sum = 0.0F;
      if (first > 0) {
        sum = scales[c];
      } else if (weights.b_up.data != nullptr) {
        sum = load_of(weights.b_up, c);
      }
      const std::int64_t line = c * weights.hidden + first;
#pragma unroll 4
      for (int j = 0; j < count; ++j) sum = fmaf(load_of(weights.w_up, line + j), hidden[j], sum);
      scales[c] = rest <= kHidden ? sigmoid(sum) : sum;
    }
    __syncthreads();
  }
}

// ---- one slab of sums, one tile of the result, in either layout ----

template <typename T, int V>
__device__ __forceinline__ float pack_sum(const Pack<T, V>& pack) {
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < V; ++j) sum += to_float(pack.v[j]);
  return sum;
}

template <typename T, int V>
struct Planes {  // NCHW
  using Element = T;
  Split split;
  std::int64_t tiles;  // of a plane

  Planes(const Shape& shape, const Split& slabs)
      : split(slabs), tiles(ceil_div(shape.pixels, std::int64_t{kThreads} * kApplyBatch * V)) {}

  // Work items of one picture.
  RESTORERT_HD std::int64_t slab_items(const Shape& shape) const {
    return shape.channels * split.count;
  }
  RESTORERT_HD std::int64_t tile_items(const Shape& shape) const { return shape.channels * tiles; }

  // One slab of one plane into sums[slab * channels + channel].
  __device__ __forceinline__ void sum(const Shape& shape, const T* r, std::int64_t item,
                                      float* sums) const {
    constexpr std::int64_t kStride = static_cast<std::int64_t>(kThreads) * V;
    const std::int64_t channel = item / split.count;
    const std::int64_t slab = item % split.count;
    const std::int64_t begin = slab * split.size;
    const std::int64_t end = begin + split.size < shape.pixels ? begin + split.size : shape.pixels;
    const T* line = r + channel * shape.pixels;
    float total = 0.0F;
    for (std::int64_t base = begin; base < end; base += kStride * kBatch) {
      const std::int64_t first = base + static_cast<std::int64_t>(threadIdx.x) * V;
      Pack<T, V> packs[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const std::int64_t at = first + i * kStride;
        if (at < end) packs[i] = load<T, V>(line + at);
      }
      float batch = 0.0F;
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i * kStride < end) batch += pack_sum(packs[i]);
      }
      total += batch;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) sums[slab * shape.channels + channel] = total;
  }

  // One tile of one plane.
  __device__ __forceinline__ void apply(const Shape& shape, const T* r, const T* x, T* out,
                                        std::int64_t item, const float* scales) const {
    constexpr std::int64_t kStride = static_cast<std::int64_t>(kThreads) * V;
    const std::int64_t channel = item / tiles;
    const std::int64_t line = channel * shape.pixels;
    const std::int64_t first =
        (item % tiles) * kStride * kApplyBatch + static_cast<std::int64_t>(threadIdx.x) * V;
    const float scale = scales[channel];
    Pack<T, V> packs[kApplyBatch];
    Pack<T, V> more[kApplyBatch];
#pragma unroll
    for (int i = 0; i < kApplyBatch; ++i) {
      const std::int64_t at = first + i * kStride;
      if (at < shape.pixels) {
        packs[i] = load_once<T, V>(r + line + at);
        if (x != nullptr) more[i] = load_once<T, V>(x + line + at);
      }
    }
#pragma unroll
    for (int i = 0; i < kApplyBatch; ++i) {
      const std::int64_t at = first + i * kStride;
      if (at < shape.pixels) {
        Pack<T, V> result;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const float value = to_float(packs[i].v[j]);
          result.v[j] = from_float<T>(x != nullptr ? fmaf(value, scale, to_float(more[i].v[j]))
                                                   : value * scale);
        }
        store_once(out + line + at, result);
      }
    }
  }
};

// Pixels that one thread of Pixels::apply walks over: enough to make up for loading its channels'
// scales.
constexpr int kPixelsAThread = 8;

template <typename T, int V>
struct Pixels {  // NHWC
  using Element = T;
  Split split;
  ChannelTile tile;
  std::int64_t slabs;  // of Pixels::apply

  Pixels(const Shape& shape, const Split& of_sums)
      : split(of_sums),
        tile(tile_channels(shape.channels / V)),
        slabs(ceil_div(shape.pixels, tile.rows * kPixelsAThread)) {}

  RESTORERT_HD std::int64_t slab_items(const Shape& /*shape*/) const {
    return split.count * tile.blocks;
  }
  RESTORERT_HD std::int64_t tile_items(const Shape& /*shape*/) const { return slabs * tile.blocks; }

  // One slab of pixels and one block of channels into sums[slab * channels + channel]. A thread
  // keeps V channels and walks over pixels.
  __device__ __forceinline__ void sum(const Shape& shape, const T* r, std::int64_t item,
                                      float* sums) const {
    __shared__ float shared[V][kThreads];
    const int tid = static_cast<int>(threadIdx.x);
    const int lanes = static_cast<int>(tile.lanes);
    const int rows = static_cast<int>(tile.rows);
    const int row = tid / lanes;
    const std::int64_t slab = item / tile.blocks;
    const std::int64_t channel = ((item % tile.blocks) * lanes + tid % lanes) * V;
    const bool active = row < rows && channel < shape.channels;
    const std::int64_t begin = slab * split.size;
    const std::int64_t rest = shape.pixels - begin;
    // A slab of 2^31 pixels would be one of 256 of a picture that fits in no memory.
    const int end = static_cast<int>(rest < split.size ? rest : split.size);
    float totals[V];
#pragma unroll
    for (int j = 0; j < V; ++j) totals[j] = 0.0F;
    if (active) {
      const T* corner = r + begin * shape.channels + channel;
      for (int pixel = row; pixel < end; pixel += rows * kBatch) {
        Pack<T, V> packs[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const int at = pixel + i * rows;
          if (at < end) packs[i] = load<T, V>(corner + at * shape.channels);
        }
        float batch[V];
#pragma unroll
        for (int j = 0; j < V; ++j) batch[j] = 0.0F;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (recompute(pixel) + i * rows < end) {
#pragma unroll
            for (int j = 0; j < V; ++j) batch[j] += to_float(packs[i].v[j]);
          }
        }
#pragma unroll
        for (int j = 0; j < V; ++j) totals[j] += batch[j];
      }
    }
    sum_rows(totals, shared, row, rows, lanes, active);
    if (active && row == 0) {
      float* to = sums + slab * shape.channels + channel;
#pragma unroll
      for (int j = 0; j < V; ++j) to[j] = totals[j];
    }
  }

  // One slab of pixels and one block of channels.
  __device__ __forceinline__ void apply(const Shape& shape, const T* r, const T* x, T* out,
                                        std::int64_t item, const float* scales) const {
    const int lanes = static_cast<int>(tile.lanes);
    const int rows = static_cast<int>(tile.rows);
    const int row = static_cast<int>(threadIdx.x) / lanes;
    const int lane = static_cast<int>(threadIdx.x) % lanes;
    const std::int64_t channel = ((item % tile.blocks) * lanes + lane) * V;
    if (row >= rows || channel >= shape.channels) return;
    const std::int64_t begin = (item / tile.blocks) * rows * kPixelsAThread;
    const std::int64_t rest = shape.pixels - begin;
    const int slab = rows * kPixelsAThread;
    const int end = rest < slab ? static_cast<int>(rest) : slab;
    const std::int64_t corner = begin * shape.channels + channel;
    float scale[V];
    load_floats<V>(scale, scales + channel);
    for (int pixel = row; pixel < end; pixel += rows * kApplyBatch) {
      Pack<T, V> packs[kApplyBatch];
      Pack<T, V> more[kApplyBatch];
#pragma unroll
      for (int i = 0; i < kApplyBatch; ++i) {
        const int at = pixel + i * rows;
        if (at < end) {
          packs[i] = load_once<T, V>(r + corner + at * shape.channels);
          if (x != nullptr) more[i] = load_once<T, V>(x + corner + at * shape.channels);
        }
      }
#pragma unroll
      for (int i = 0; i < kApplyBatch; ++i) {
        const int at = recompute(pixel) + i * rows;
        if (at < end) {
          Pack<T, V> result;
#pragma unroll
          for (int j = 0; j < V; ++j) {
            const float value = to_float(packs[i].v[j]);
            result.v[j] = from_float<T>(x != nullptr ? fmaf(value, scale[j], to_float(more[i].v[j]))
                                                     : value * scale[j]);
          }
          store_once(out + corner + at * shape.channels, result);
        }
      }
    }
  }
};

// ---- kernels ----

// sums[(image * slabs + slab) * channels + channel]
template <typename Layout>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sum_slabs(Layout layout, Shape shape, const typename Layout::Element* r, float* sums) {
  const std::int64_t items = layout.slab_items(shape);
  for (std::int64_t item = blockIdx.x; item < shape.images * items; item += gridDim.x) {
    const std::int64_t image = item / items;
    layout.sum(shape, r + image * shape.channels * shape.pixels, item % items,
               sums + image * layout.split.count * shape.channels);
  }
}

// One block a picture: scales[image * channels + channel].
__global__ void __launch_bounds__(kExciteThreads)
    excite(Shape shape, Weights weights, std::int64_t slabs, const float* sums, float* means,
           float* scales) {
  for (std::int64_t image = blockIdx.x; image < shape.images; image += gridDim.x) {
    const std::int64_t first = image * shape.channels;
    make_scales(shape, weights, slabs, sums + first * slabs, means + first, scales + first);
  }
}

template <typename Layout>
__global__ void __launch_bounds__(kThreads, kBlocks)
    apply_scales(Layout layout, Shape shape, const typename Layout::Element* r,
                 const typename Layout::Element* x, typename Layout::Element* out,
                 const float* scales) {
  const std::int64_t items = layout.tile_items(shape);
  for (std::int64_t item = blockIdx.x; item < shape.images * items; item += gridDim.x) {
    // Backwards: what was summed last is still in the L2 cache.
    const std::int64_t rest = shape.images * items - 1 - item;
    const std::int64_t image = rest / items;
    const std::int64_t offset = image * shape.channels * shape.pixels;
    layout.apply(shape, r + offset, x != nullptr ? x + offset : nullptr, out + offset, rest % items,
                 scales + image * shape.channels);
  }
}

// excite and apply_scales in one, for few blocks.
template <typename Layout>
__global__ void __launch_bounds__(kThreads, 2)
    excite_and_apply(Layout layout, Shape shape, Weights weights, std::int64_t slabs,
                     const float* sums, const typename Layout::Element* r,
                     const typename Layout::Element* x, typename Layout::Element* out) {
  __shared__ float means[kFewChannels];
  alignas(16) __shared__ float scales[kFewChannels];
  const std::int64_t items = layout.tile_items(shape);
  for (std::int64_t item = blockIdx.x; item < shape.images * items; item += gridDim.x) {
    const std::int64_t image = item / items;
    const std::int64_t offset = image * shape.channels * shape.pixels;
    __syncthreads();  // an earlier item's scales have been read
    make_scales(shape, weights, slabs, sums + image * shape.channels * slabs, means, scales);
    layout.apply(shape, r + offset, x != nullptr ? x + offset : nullptr, out + offset, item % items,
                 scales);
  }
}

// ---- launching ----

template <typename Layout>
cudaError_t launch_all(const Layout& layout, const Problem& problem, const Shape& shape,
                       void* workspace, cudaStream_t stream) {
  using T = typename Layout::Element;
  const auto* r = static_cast<const T*>(problem.r);
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  auto* scales = static_cast<float*>(workspace);  // first, so that they are aligned
  float* means = scales + shape.images * shape.channels;
  const Weights weights{problem.w_down, problem.w_up, problem.b_down, problem.b_up, problem.hidden};
  const float* sums = problem.sums;
  std::int64_t slabs = 1;
  if (sums == nullptr) {
    float* own = means + shape.images * shape.channels;
    slabs = layout.split.count;
    const cudaError_t error = launch(sum_slabs<Layout>, shape.images * layout.slab_items(shape),
                                     kThreads, stream, layout, shape, r, own);
    if (error != cudaSuccess) return error;
    sums = own;
  }
  const std::int64_t blocks = shape.images * layout.tile_items(shape);
  if (blocks <= kFewBlocks && shape.channels <= kFewChannels &&
      slabs * shape.channels <= kFewSums) {
    return launch(excite_and_apply<Layout>, blocks, kThreads, stream, layout, shape, weights, slabs,
                  sums, r, x, out);
  }
  const cudaError_t error = launch(excite, shape.images, kExciteThreads, stream, shape, weights,
                                   slabs, sums, means, scales);
  if (error != cudaSuccess) return error;
  return launch(apply_scales<Layout>, blocks, kThreads, stream, layout, shape, r, x, out,
                static_cast<const float*>(scales));
}

// The widest vector, of at most kVectorBytes, that every line (a plane, or the channels of a pixel)
// splits into; 0 where there is none wider than an element.
std::int64_t vector_bytes(const Problem& problem) {
  const std::int64_t line = problem.layout == Layout::kNCHW ? problem.pixels : problem.channels;
  const auto bytes = line * static_cast<std::int64_t>(item_size(problem.dtype));
  for (std::int64_t width = kVectorBytes; width >= kVectorBytes / 2; width /= 2) {
    if (splits_into(width, bytes, {problem.r, problem.x, problem.out})) return width;
  }
  return 0;
}

template <typename T, int V>
cudaError_t run_vectors(const Problem& problem, void* workspace, cudaStream_t stream) {
  const Shape shape{problem.images, problem.channels, problem.pixels};
  const Split slabs = split(problem.layout, shape.pixels, shape.channels, sizeof(T));
  if (problem.layout == Layout::kNCHW) {
    return launch_all(Planes<T, V>(shape, slabs), problem, shape, workspace, stream);
  }
  return launch_all(Pixels<T, V>(shape, slabs), problem, shape, workspace, stream);
}

}  // namespace

Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream) {
  if (problem.empty()) return {};
  RESTORERT_RETURN_IF_ERROR(
      check_workspace_memory(kName, workspace, workspace_size, cuda_workspace_size(problem)));
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  return launch_on(kName, problem.device_index, [&] {
    return dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr int kWidest = static_cast<int>(kVectorBytes / sizeof(T));
      switch (vector_bytes(problem)) {
        case kVectorBytes:
          return run_vectors<T, kWidest>(problem, workspace, cuda_stream);
        case kVectorBytes / 2:
          return run_vectors<T, kWidest / 2>(problem, workspace, cuda_stream);
        default:
          return run_vectors<T, 1>(problem, workspace, cuda_stream);
      }
    });
  });
}

}  // namespace restorert::channel_attention

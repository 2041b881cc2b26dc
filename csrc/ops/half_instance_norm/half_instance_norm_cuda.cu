// Half instance norm on CUDA.
//
// NCHW, a plane that fits in the registers of one thread block: one kernel, one read, one write.
// NCHW, larger planes: partial moments into the workspace, then a kernel that merges them and
// writes all C channels. NHWC: partial moments, a small kernel that merges them into a scale and a
// shift per channel, then a kernel that writes all C channels.
//
// All sums are taken of x - reference, where the reference is the channel's middle pixel: where the
// mean is large, the mean of what is left is small and fp32 holds it well. A thread takes the
// moments of what it has in registers by the two-pass formula and merges them by Chan's. Every
// merge happens in an order that the shape fixes, so results repeat bit for bit.
#include "core/check.h"
#include "core/device.cuh"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace restorert::half_instance_norm {
namespace {

struct Partial {
  float reference;
  float mean;  // of x - reference
  float m2;
  float count;
};
static_assert(sizeof(Partial) == sizeof(float4));

struct Shape {
  std::int64_t images;
  std::int64_t channels;
  std::int64_t half;
  std::int64_t pixels;
};

struct Parameters {
  const void* weight;
  const void* bias;
  DType weight_dtype;
  DType bias_dtype;
  float eps;
  float negative_slope;
};

__device__ __forceinline__ Affine affine_of(const Parameters& parameters, float reference,
                                            const Moments<float>& moments, std::int64_t channel) {
  return make_affine(
      reference, moments, load_parameter(parameters.weight, parameters.weight_dtype, channel),
      load_parameter(parameters.bias, parameters.bias_dtype, channel), parameters.eps);
}

__device__ __forceinline__ void store_partial(Partial* address, const Partial& partial) {
  *reinterpret_cast<float4*>(address) =
      make_float4(partial.reference, partial.mean, partial.m2, partial.count);
}

__device__ __forceinline__ Partial load_partial(const Partial* address) {
  const float4 word = *reinterpret_cast<const float4*>(address);
  return {word.x, word.y, word.z, word.w};
}

// Index is int where a line is known to be short, which saves registers.
//
// kBatch packs of one line, `stride` elements apart, as far as they lie before `end`.
template <typename T, int V, bool kKeep, typename Index>
__device__ __forceinline__ void load_line(Pack<T, V> (&packs)[kBatch], const T* line, Index first,
                                          Index stride, Index end) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const Index at = first + i * stride;
    if (at < end) packs[i] = kKeep ? load<T, V>(line + at) : load_once<T, V>(line + at);
  }
}

// Moments of (packs - reference) over the packs that load_line filled.
template <typename T, int V, typename Index>
__device__ __forceinline__ Moments<float> line_moments(const Pack<T, V> (&packs)[kBatch],
                                                       Index first, Index stride, Index end,
                                                       float reference) {
  float sum = 0.0F;
  int filled = 0;
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (first + i * stride < end) {
      ++filled;
#pragma unroll
      for (int j = 0; j < V; ++j) sum += to_float(packs[i].v[j]) - reference;
    }
  }
  if (filled == 0) return {0.0F, 0.0F, 0.0F};
  const float count = static_cast<float>(filled * V);
  const float mean = __fdividef(sum, count);
  float m2 = 0.0F;
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (first + i * stride < end) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const float distance = (to_float(packs[i].v[j]) - reference) - mean;
        m2 = fmaf(distance, distance, m2);
      }
    }
  }
  return {count, mean, m2};
}

template <typename T, int V, typename Index>
__device__ __forceinline__ void store_line(const Pack<T, V> (&packs)[kBatch], T* line, Index first,
                                           Index stride, Index end, const Affine& affine,
                                           float negative_slope) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const Index at = first + i * stride;
    if (at < end) {
      Pack<T, V> result;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        result.v[j] = from_float<T>(apply(to_float(packs[i].v[j]), affine, negative_slope));
      }
      store_once(line + at, result);
    }
  }
}

// ---- NCHW ----

// One block a plane, the plane in registers: pixels <= blockDim.x * kBatch * V.
template <typename T, int V>
__global__ void __launch_bounds__(1024)
    whole_planes(const T* x, T* out, Shape shape, Parameters parameters) {
  const int stride = static_cast<int>(blockDim.x) * V;
  const int first = static_cast<int>(threadIdx.x) * V;
  const int pixels = static_cast<int>(shape.pixels);
  const std::int64_t planes = shape.images * shape.channels;
  for (std::int64_t item = blockIdx.x; item < planes; item += gridDim.x) {
    // Neighbouring blocks take a channel of either half, so that while one waits for its statistics
    // the other keeps the memory busy.
    const std::int64_t image = item / shape.channels;
    const std::int64_t rank = item % shape.channels;
    const bool normalised = rank % 2 == 0;
    const std::int64_t channel = rank / 2 + (normalised ? 0 : shape.half);
    const std::int64_t offset = (image * shape.channels + channel) * shape.pixels;
    Pack<T, V> packs[kBatch];
    load_line<T, V, false>(packs, x + offset, first, stride, pixels);
    Affine affine = identity_affine();
    if (normalised) {  // the same for all threads of the block
      const float reference = to_float(x[offset + shape.pixels / 2]);
      const Moments<float> moments =
          block_merge(line_moments<T, V>(packs, first, stride, pixels, reference));
      affine = affine_of(parameters, reference, moments, channel);
    }
    store_line<T, V>(packs, out + offset, recompute(first), stride, pixels, affine,
                     parameters.negative_slope);
  }
}

// One block a slab of a normalised plane: partials[plane * split.count + slab].
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    plane_statistics(const T* x, Shape shape, Split split, Partial* partials) {
  constexpr std::int64_t kStride = static_cast<std::int64_t>(kThreads) * V;
  const std::int64_t items = shape.images * shape.half * split.count;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t plane = item / split.count;
    const std::int64_t begin = (item % split.count) * split.size;
    const std::int64_t end = begin + split.size < shape.pixels ? begin + split.size : shape.pixels;
    const T* line = x + ((plane / shape.half) * shape.channels + plane % shape.half) * shape.pixels;
    const float reference = to_float(line[shape.pixels / 2]);
    Moments<float> moments{0.0F, 0.0F, 0.0F};
    for (std::int64_t base = begin; base < end; base += kStride * kBatch) {
      const std::int64_t first = base + static_cast<std::int64_t>(threadIdx.x) * V;
      Pack<T, V> packs[kBatch];
      load_line<T, V, true>(packs, line, first, kStride, end);
      moments = merge_fast(moments, line_moments<T, V>(packs, first, kStride, end, reference));
    }
    moments = block_merge(moments);
    if (threadIdx.x == 0) {
      store_partial(partials + item, {reference, moments.mean, moments.m2, moments.count});
    }
  }
}

// One block a tile of any plane. split.count <= kThreads: one partial a thread.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    apply_planes(const T* x, T* out, Shape shape, Parameters parameters, Split split,
                 const Partial* partials) {
  constexpr std::int64_t kStride = static_cast<std::int64_t>(kThreads) * V;
  constexpr std::int64_t kTile = kStride * kBatch;
  const std::int64_t tiles = (shape.pixels + kTile - 1) / kTile;
  const std::int64_t normalised = shape.images * shape.half;
  const std::int64_t items = 2 * normalised * tiles;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t rank = item / tiles;
    // The normalised planes first and backwards: the last ones are still in the L2 cache.
    const bool first_half = rank < normalised;
    const std::int64_t plane = first_half ? normalised - 1 - rank : rank - normalised;
    const std::int64_t channel = plane % shape.half;
    const std::int64_t offset =
        ((plane / shape.half) * shape.channels + channel + (first_half ? 0 : shape.half)) *
        shape.pixels;
    const std::int64_t first = (item % tiles) * kTile + static_cast<std::int64_t>(threadIdx.x) * V;
    Pack<T, V> packs[kBatch];
    load_line<T, V, false>(packs, x + offset, first, kStride, shape.pixels);
    Affine affine = identity_affine();
    if (first_half) {
      const Partial* mine = partials + plane * split.count;
      Moments<float> moments{0.0F, 0.0F, 0.0F};
      if (threadIdx.x < split.count) {
        const Partial partial = load_partial(mine + threadIdx.x);
        moments = {partial.count, partial.mean, partial.m2};
      }
      moments = block_merge(moments);
      affine = affine_of(parameters, mine->reference, moments, channel);
    }
    store_line<T, V>(packs, out + offset, first, kStride, shape.pixels, affine,
                     parameters.negative_slope);
  }
}

// ---- NHWC ----

// One block a slab of pixels and a block of channels: partials[(image * slabs + slab) * half + c].
// A thread keeps V channels and walks over pixels.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 2)
    channel_statistics(const T* x, Shape shape, Split split, ChannelTile tile, Partial* partials) {
  __shared__ float shared_mean[V][kThreads];
  __shared__ float shared_m2[V][kThreads];
  __shared__ float shared_count[kThreads];
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
    const bool active = row < rows && channel < shape.half;
    const std::int64_t begin = slab * split.size;
    const std::int64_t end = begin + split.size < shape.pixels ? begin + split.size : shape.pixels;

    float reference[V];
    float mean[V];
    float m2[V];
    float count = 0.0F;
#pragma unroll
    for (int j = 0; j < V; ++j) reference[j] = mean[j] = m2[j] = 0.0F;
    if (active) {
      const T* column = x + image * shape.pixels * shape.channels + channel;
      const Pack<T, V> middle = load<T, V>(column + (shape.pixels / 2) * shape.channels);
#pragma unroll
      for (int j = 0; j < V; ++j) reference[j] = to_float(middle.v[j]);
      for (std::int64_t pixel = begin + row; pixel < end;
           pixel += static_cast<std::int64_t>(rows) * kBatch) {
        Pack<T, V> packs[kBatch];
        int filled = 0;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const std::int64_t at = pixel + i * rows;
          if (at < end) {
            packs[i] = load<T, V>(column + at * shape.channels);
            ++filled;
          }
        }
        const float batch = static_cast<float>(filled);  // >= 1
        const float inverse = __fdividef(1.0F, batch);
        const float share = __fdividef(batch, count + batch);
        const float weight = count * share;
        count += batch;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          float sum = 0.0F;
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (i < filled) sum += to_float(packs[i].v[j]) - reference[j];
          }
          const float batch_mean = sum * inverse;
          float batch_m2 = 0.0F;
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (i < filled) {
              const float distance = (to_float(packs[i].v[j]) - reference[j]) - batch_mean;
              batch_m2 = fmaf(distance, distance, batch_m2);
            }
          }
          m2[j] += batch_m2 + merge_means(mean[j], batch_mean, share, weight);
        }
      }
    }

    __syncthreads();  // an earlier item's sums have been read
#pragma unroll
    for (int j = 0; j < V; ++j) {
      shared_mean[j][tid] = mean[j];
      shared_m2[j][tid] = m2[j];
    }
    shared_count[tid] = count;
    __syncthreads();
    // Halve the rows until one is left. kThreads / 2 starts above half of any number of rows.
    for (int step = kThreads / 2; step > 0; step /= 2) {
      if (active && row < step && row + step < rows) {
        const int other = tid + step * lanes;
        const float other_count = shared_count[other];
        const float total = count + other_count;
        const float share = total > 0.0F ? __fdividef(other_count, total) : 0.0F;
        const float weight = count * share;
        count = total;
        shared_count[tid] = count;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          m2[j] += shared_m2[j][other] + merge_means(mean[j], shared_mean[j][other], share, weight);
          shared_mean[j][tid] = mean[j];
          shared_m2[j][tid] = m2[j];
        }
      }
      __syncthreads();
    }
    if (active && row == 0) {
      Partial* to = partials + (image * split.count + slab) * shape.half + channel;
#pragma unroll
      for (int j = 0; j < V; ++j) store_partial(to + j, {reference[j], mean[j], m2[j], count});
    }
  }
}

// One block for two neighbouring channels (32 bytes of partials): merges the slabs and writes
// affines[k * images * half + image * half + c], k = mean, scale, shift.
__global__ void __launch_bounds__(kThreads)
    finalize_channels(Shape shape, Parameters parameters, std::int64_t slabs,
                      const Partial* partials, float* affines) {
  __shared__ Moments<float> shared[kThreads];
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / 2;
  constexpr int kRows = kThreads / 2;
  const std::int64_t pairs = (shape.half + 1) / 2;
  const std::int64_t items = shape.images * pairs;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t image = item / pairs;
    const std::int64_t channel = (item % pairs) * 2 + tid % 2;
    const bool active = channel < shape.half;
    const Partial* column = partials + image * slabs * shape.half + channel;
    Moments<float> moments{0.0F, 0.0F, 0.0F};
    if (active) {
#pragma unroll 4
      for (std::int64_t slab = row; slab < slabs; slab += kRows) {
        const Partial partial = load_partial(column + slab * shape.half);
        moments = merge_fast(moments, {partial.count, partial.mean, partial.m2});
      }
    }
    __syncthreads();  // an earlier item's moments have been read
    shared[tid] = moments;
    __syncthreads();
    for (int step = kRows / 2; step > 0; step /= 2) {
      if (row < step) {
        moments = merge_fast(moments, shared[tid + 2 * step]);
        shared[tid] = moments;
      }
      __syncthreads();
    }
    if (active && row == 0) {
      const Affine affine = affine_of(parameters, column->reference, moments, channel);
      const std::int64_t all = shape.images * shape.half;
      float* to = affines + image * shape.half + channel;
      to[0] = affine.mean;
      to[all] = affine.scale;
      to[2 * all] = affine.shift;
    }
  }
}

// Pixels that one thread of apply_channels walks over: enough to make up for loading its channels'
// numbers, which take three times four bytes an element.
constexpr int kPixelsAThread = 16;
constexpr int kPixelBatch = 4;

// One block a slab of tile.rows * kPixelsAThread pixels and a block of channels, of all C.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 2)
    apply_channels(const T* x, T* out, Shape shape, ChannelTile tile, float negative_slope,
                   const float* affines) {
  const int lanes = static_cast<int>(tile.lanes);
  const int rows = static_cast<int>(tile.rows);
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int row = static_cast<int>(threadIdx.x) / lanes;
  const std::int64_t slab_pixels = static_cast<std::int64_t>(rows) * kPixelsAThread;
  const std::int64_t slabs = (shape.pixels + slab_pixels - 1) / slab_pixels;
  const std::int64_t all = shape.images * shape.half;
  const std::int64_t items = shape.images * slabs * tile.blocks;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t channel = ((item % tile.blocks) * lanes + lane) * V;
    // Backwards: the last pixels that the statistics read are still in the L2 cache.
    const std::int64_t rest = items / tile.blocks - 1 - item / tile.blocks;
    const std::int64_t image = rest / slabs;
    const std::int64_t begin = (rest % slabs) * slab_pixels;
    const std::int64_t end =
        begin + slab_pixels < shape.pixels ? begin + slab_pixels : shape.pixels;
    if (row >= rows || channel >= shape.channels) continue;

    float mean[V];
    float scale[V];
    float shift[V];
    if (channel < shape.half) {  // a vector lies in one half: V divides C / 2
      const float* from = affines + image * shape.half + channel;
      load_floats<V>(mean, from);
      load_floats<V>(scale, from + all);
      load_floats<V>(shift, from + 2 * all);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const Affine identity = identity_affine();
        mean[j] = identity.mean;
        scale[j] = identity.scale;
        shift[j] = identity.shift;
      }
    }
    const std::int64_t column = image * shape.pixels * shape.channels + channel;
    for (std::int64_t pixel = begin + row; pixel < end;
         pixel += static_cast<std::int64_t>(rows) * kPixelBatch) {
      Pack<T, V> packs[kPixelBatch];
#pragma unroll
      for (int i = 0; i < kPixelBatch; ++i) {
        const std::int64_t at = pixel + i * rows;
        if (at < end) packs[i] = load_once<T, V>(x + column + at * shape.channels);
      }
#pragma unroll
      for (int i = 0; i < kPixelBatch; ++i) {
        const std::int64_t at = pixel + i * rows;
        if (at < end) {
          Pack<T, V> result;
#pragma unroll
          for (int j = 0; j < V; ++j) {
            result.v[j] = from_float<T>(apply(to_float(packs[i].v[j]),
                                              Affine{mean[j], scale[j], shift[j]}, negative_slope));
          }
          store_once(out + column + at * shape.channels, result);
        }
      }
    }
  }
}

// ---- launching ----

template <typename T, int V>
cudaError_t run_planes(const Problem& problem, const Shape& shape, const Parameters& parameters,
                       void* workspace, cudaStream_t stream) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  for (const int threads : {256, 512, 1024}) {
    if (shape.pixels <= static_cast<std::int64_t>(threads) * kBatch * V) {
      return launch(whole_planes<T, V>, shape.images * shape.channels, threads, stream, x, out,
                    shape, parameters);
    }
  }
  const Split split = split_plane(shape.pixels, sizeof(T));
  auto* partials = static_cast<Partial*>(workspace);
  const cudaError_t error = launch(plane_statistics<T, V>, shape.images * shape.half * split.count,
                                   kThreads, stream, x, shape, split, partials);
  if (error != cudaSuccess) return error;
  const std::int64_t tiles = ceil_div(shape.pixels, std::int64_t{kThreads} * kBatch * V);
  return launch(apply_planes<T, V>, shape.images * shape.channels * tiles, kThreads, stream, x, out,
                shape, parameters, split, static_cast<const Partial*>(partials));
}

template <typename T, int V>
cudaError_t run_pixels(const Problem& problem, const Shape& shape, const Parameters& parameters,
                       void* workspace, cudaStream_t stream) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const Split split = split_pixels(shape.pixels, shape.channels, sizeof(T));
  auto* partials = static_cast<Partial*>(workspace);
  auto* affines = reinterpret_cast<float*>(partials + shape.images * split.count * shape.half);

  const ChannelTile half_tile = tile_channels(shape.half / V);
  cudaError_t error =
      launch(channel_statistics<T, V>, shape.images * split.count * half_tile.blocks, kThreads,
             stream, x, shape, split, half_tile, partials);
  if (error != cudaSuccess) return error;
  error = launch(finalize_channels, shape.images * ceil_div(shape.half, 2), kThreads, stream, shape,
                 parameters, split.count, static_cast<const Partial*>(partials), affines);
  if (error != cudaSuccess) return error;
  const ChannelTile tile = tile_channels(shape.channels / V);
  const std::int64_t slabs = ceil_div(shape.pixels, tile.rows * kPixelsAThread);
  return launch(apply_channels<T, V>, shape.images * slabs * tile.blocks, kThreads, stream, x, out,
                shape, tile, parameters.negative_slope, static_cast<const float*>(affines));
}

}  // namespace

Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream) {
  if (problem.empty()) return {};
  RESTORERT_RETURN_IF_ERROR(
      check_workspace_memory(kName, workspace, workspace_size, cuda_workspace_size(problem)));
  const Shape shape{problem.images, problem.channels, problem.channels / 2, problem.pixels};
  const Parameters parameters{problem.weight,     problem.bias, problem.weight_dtype,
                              problem.bias_dtype, problem.eps,  problem.negative_slope};
  // A plane, or the normalised channels of a pixel.
  const std::int64_t line = problem.layout == Layout::kNCHW ? shape.pixels : shape.half;
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  return launch_on(kName, problem.device_index, [&] {
    return dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));
      const bool vectors = splits_into(kVectorBytes, line * sizeof(T), {problem.x, problem.out});
      if (problem.layout == Layout::kNCHW) {
        return vectors ? run_planes<T, kLanes>(problem, shape, parameters, workspace, cuda_stream)
                       : run_planes<T, 1>(problem, shape, parameters, workspace, cuda_stream);
      }
      return vectors ? run_pixels<T, kLanes>(problem, shape, parameters, workspace, cuda_stream)
                     : run_pixels<T, 1>(problem, shape, parameters, workspace, cuda_stream);
    });
  });
}

}  // namespace restorert::half_instance_norm

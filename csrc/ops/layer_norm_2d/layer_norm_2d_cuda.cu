// Layer norm over channels on CUDA: one kernel, one read, one write.
//
// NCHW: a block takes some neighbouring pixels and all their channels. A thread keeps the channels
// `row`, `row + rows`, ... of V neighbouring pixels in registers; the rows' moments meet in shared
// memory. A second read through the L2 cache would cost as much of its bandwidth as the first, and
// with one thread for all channels of a pixel the registers end at 16 channels: hence the rows.
// Only beyond 1024 channels is x read again. NHWC: a part of a warp takes a pixel, whose channels
// it keeps in registers; shuffles sum.
//
// Moments are those of x - reference, where the reference is a channel of the same pixel: where the
// mean is large, what is left is small and fp32 holds it well. Merging happens in an order that the
// shape fixes, so results repeat bit for bit.
#include "core/device.cuh"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace restorert::layer_norm_2d {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kWarp = 32;

struct Parameters {
  const void* weight;
  const void* bias;
  DType weight_dtype;
  DType bias_dtype;
  float eps;
};

__device__ __forceinline__ float weight_of(const Parameters& parameters, std::int64_t channel) {
  return load_parameter(parameters.weight, parameters.weight_dtype, channel);
}

__device__ __forceinline__ float bias_of(const Parameters& parameters, std::int64_t channel) {
  return load_parameter(parameters.bias, parameters.bias_dtype, channel);
}

// ---- NCHW ----

// B packs of one thread, channels first, first + stride, ... below `channels`, of neighbouring
// pixels; `column` is channel 0 of them.
template <typename T, int V, int B, bool kKeep>
__device__ __forceinline__ void load_channels(Pack<T, V> (&packs)[B], const T* column,
                                              std::int64_t pixels, int first, int stride,
                                              int channels) {
#pragma unroll
  for (int i = 0; i < B; ++i) {
    const int channel = first + i * stride;
    if (channel < channels) {
      const T* at = column + channel * pixels;
      packs[i] = kKeep ? load<T, V>(at) : load_once<T, V>(at);
    }
  }
}

struct MeanAndM2 {
  float mean;
  float m2;
};

// Of element j of the first `filled` packs, minus reference; zeros for none.
template <typename T, int V, int B>
__device__ __forceinline__ MeanAndM2 pack_moments(const Pack<T, V> (&packs)[B], int j, int filled,
                                                  float reference) {
  if (filled <= 0) return {0.0F, 0.0F};
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < B; ++i) {
    if (i < filled) sum += to_float(packs[i].v[j]) - reference;
  }
  const float mean = __fdividef(sum, static_cast<float>(filled < B ? filled : B));
  float m2 = 0.0F;
#pragma unroll
  for (int i = 0; i < B; ++i) {
    if (i < filled) {
      const float distance = (to_float(packs[i].v[j]) - reference) - mean;
      m2 = fmaf(distance, distance, m2);
    }
  }
  return {mean, m2};
}

// One block `tile.lanes` * V neighbouring pixels of one image.
template <typename T, int V, int B, bool kResident, int kMaxThreads>
__global__ void __launch_bounds__(kMaxThreads, 512 / kMaxThreads)
    normalise_planes(const T* x, T* out, Shape shape, Parameters parameters, PlaneTile tile) {
  // Sums of groups of threads that shuffles cannot reach: [group][j][lane].
  constexpr int kPart = V < 4 ? V : 4;
  constexpr int kSums = kMaxThreads * V / (V > 1 && kMaxThreads > kThreads ? 4 : 1);
  __shared__ float shared_mean[kSums];
  __shared__ float shared_m2[kSums];  // then the scale
  __shared__ float shared_count[kWarp];
  constexpr int kChannels = !kResident ? 1 : (kMaxThreads == kThreads ? 256 : 1024);
  __shared__ float shared_weight[kChannels];
  __shared__ float shared_bias[kChannels];
  const int tid = static_cast<int>(threadIdx.x);
  const int lanes = tile.lanes;
  const int rows = tile.rows;
  const int lane = tid & (lanes - 1);
  const int row = tid / lanes;
  const int channels = static_cast<int>(shape.channels);
  const int columns = lanes * V;
  const bool wide = lanes >= kWarp;  // a warp lies in one row
  const int group = wide ? row : tid / kWarp;
  const int groups = wide ? rows : rows * lanes / kWarp;
  if (kResident) {  // barriers follow before they are read
    for (int channel = tid; channel < channels; channel += static_cast<int>(blockDim.x)) {
      shared_weight[channel] = weight_of(parameters, channel);
      shared_bias[channel] = bias_of(parameters, channel);
    }
  }
  const std::int64_t tiles = (shape.pixels + columns - 1) / columns;
  const std::int64_t items = shape.images * tiles;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t first = (item % tiles) * columns + static_cast<std::int64_t>(lane) * V;
    const std::int64_t offset = (item / tiles) * shape.channels * shape.pixels + first;
    // Threads behind the last pixel take part in barriers and shuffles only.
    const int mine = first < shape.pixels ? channels : 0;
    const T* column = x + offset;

    Pack<T, V> packs[B];
    load_channels<T, V, B, !kResident>(packs, column, shape.pixels, row, rows, mine);
    // Its own row of the block reads the same line, at the same time.
    Pack<T, V> reference{};
    if (mine > 0) reference = load<T, V>(column + (channels / 2) * shape.pixels);

    int filled = mine > row ? (mine - row + rows - 1) / rows : 0;  // of this thread's channels
    float count = static_cast<float>(filled);
    float mean[kResident ? 1 : V];
    float m2[kResident ? 1 : V];
    if (!kResident) {
      count = 0.0F;
#pragma unroll
      for (int j = 0; j < V; ++j) mean[j] = m2[j] = 0.0F;
      for (int base = row; base < mine; base += rows * B) {
        if (base != row) {
          load_channels<T, V, B, true>(packs, column, shape.pixels, base, rows, mine);
        }
        const float batch = static_cast<float>(filled < B ? filled : B);
        const float share = __fdividef(batch, count + batch);
        const float cross = count * share;
        count += batch;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const MeanAndM2 part = pack_moments<T, V, B>(packs, j, filled, to_float(reference.v[j]));
          m2[j] += part.m2 + merge_means(mean[j], part.mean, share, cross);
        }
        filled -= B;
      }
    }

    // The rows that lie in one warp, at most eight, merge by shuffles.
    float shares[3];
    float crosses[3];
    float merged = count;
#pragma unroll
    for (int s = 0; s < 3; ++s) {
      if ((lanes << s) < kWarp) {
        const float other = __shfl_xor_sync(kAll, merged, lanes << s);
        shares[s] = merged + other > 0.0F ? __fdividef(other, merged + other) : 0.0F;
        crosses[s] = merged * shares[s];
        merged += other;
      }
    }
    __syncthreads();  // an earlier item's statistics have been read
#pragma unroll
    for (int j = 0; j < V; ++j) {
      MeanAndM2 total;
      if constexpr (kResident) {
        total = pack_moments<T, V, B>(packs, j, filled, to_float(reference.v[j]));
      } else {
        total = {mean[j], m2[j]};
      }
#pragma unroll
      for (int s = 0; s < 3; ++s) {
        if ((lanes << s) < kWarp) {
          const float other_mean = __shfl_xor_sync(kAll, total.mean, lanes << s);
          const float other_m2 = __shfl_xor_sync(kAll, total.m2, lanes << s);
          total.m2 += other_m2 + merge_means(total.mean, other_mean, shares[s], crosses[s]);
        }
      }
      if (wide || tid % kWarp < lanes) {
        shared_mean[group * columns + j * lanes + lane] = total.mean;
        shared_m2[group * columns + j * lanes + lane] = total.m2;
      }
    }
    if (lane == 0 && (wide || tid % kWarp == 0)) {
      shared_count[group] = merged;  // of the first pixel, which exists
    }
    __syncthreads();
    // One thread a pixel: mean = sum n_g mean_g / C, m2 = sum m2_g + n_g (mean_g - mean)^2.
    for (int at = tid; at < columns; at += static_cast<int>(blockDim.x)) {
      float sum = 0.0F;
      for (int g = 0; g < groups; ++g) {
        sum = fmaf(shared_count[g], shared_mean[g * columns + at], sum);
      }
      const float all = static_cast<float>(channels);
      const float total_mean = __fdividef(sum, all);
      float total_m2 = 0.0F;
      for (int g = 0; g < groups; ++g) {
        const float distance = shared_mean[g * columns + at] - total_mean;
        total_m2 += fmaf(shared_count[g] * distance, distance, shared_m2[g * columns + at]);
      }
      shared_mean[at] = total_mean;
      shared_m2[at] = make_scale(total_m2, all, parameters.eps);
    }
    __syncthreads();

    // `recompute`: no address of the loads is kept in registers for the stores.
    const int again = recompute(row);
    for (int base = again; base < mine; base += rows * B) {
      if (!kResident) load_channels<T, V, B, false>(packs, column, shape.pixels, base, rows, mine);
      // In place, and the statistics of a few pixels in registers at a time.
#pragma unroll
      for (int part = 0; part < V; part += kPart) {
        float part_mean[kPart];
        float part_scale[kPart];
#pragma unroll
        for (int j = 0; j < kPart; ++j) {
          part_mean[j] = shared_mean[(part + j) * lanes + lane];
          part_scale[j] = shared_m2[(part + j) * lanes + lane];
        }
#pragma unroll
        for (int i = 0; i < B; ++i) {
          const int channel = base + i * rows;
          if (channel < mine) {
            const float weight =
                kResident ? shared_weight[channel] : weight_of(parameters, channel);
            const float bias = kResident ? shared_bias[channel] : bias_of(parameters, channel);
#pragma unroll
            for (int j = 0; j < kPart; ++j) {
              const Norm norm{to_float(reference.v[part + j]), part_mean[j], part_scale[j]};
              const float value = to_float(packs[i].v[part + j]);
              packs[i].v[part + j] = from_float<T>(apply(value, norm, weight, bias));
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < B; ++i) {
        const int channel = base + i * rows;
        if (channel < mine) store_once(out + offset + channel * shape.pixels, packs[i]);
      }
    }
  }
}

// ---- NHWC ----

// Sum over the `lanes` threads that share a pixel; all of them get it.
__device__ __forceinline__ float sum_lanes(float value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

// `lanes` threads a pixel, K packs of it a thread, P pixels a thread at once. One block a slab.
template <typename T, int V, int K>
__global__ void __launch_bounds__(kThreads, 2)
    normalise_pixels(const T* x, T* out, Shape shape, Parameters parameters, int lanes,
                     std::int64_t slab) {
  constexpr int P = K * V >= 32 ? 1 : kPacks / K;
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int row = static_cast<int>(threadIdx.x) / lanes;
  const int rows = kThreads / lanes;
  const int channels = static_cast<int>(shape.channels);
  const float all = static_cast<float>(channels);
  float weight[K][V];
  float bias[K][V];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int channel = (lane + k * lanes) * V;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      weight[k][j] = channel < channels ? weight_of(parameters, channel + j) : 0.0F;
      bias[k][j] = channel < channels ? bias_of(parameters, channel + j) : 0.0F;
    }
  }
  const std::int64_t pixels = shape.images * shape.pixels;
  const std::int64_t items = (pixels + slab - 1) / slab;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t end = (item + 1) * slab < pixels ? (item + 1) * slab : pixels;
    // The same number of steps for all threads of a warp, for the shuffles.
    for (std::int64_t base = item * slab; base < end; base += static_cast<std::int64_t>(rows) * P) {
      Pack<T, V> packs[P][K];
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const std::int64_t pixel = base + i * rows + row;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          const int channel = (lane + k * lanes) * V;
          if (pixel < end && channel < channels) {
            packs[i][k] = load_once<T, V>(x + pixel * channels + channel);
          } else {
            packs[i][k] = {};
          }
        }
      }
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const std::int64_t pixel = base + i * rows + row;
        const float reference = __shfl_sync(kAll, to_float(packs[i][0].v[0]), 0, lanes);
        float sum = 0.0F;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          if ((lane + k * lanes) * V < channels) {
#pragma unroll
            for (int j = 0; j < V; ++j) sum += to_float(packs[i][k].v[j]) - reference;
          }
        }
        const float mean = __fdividef(sum_lanes(sum, lanes), all);
        float m2 = 0.0F;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          if ((lane + k * lanes) * V < channels) {
#pragma unroll
            for (int j = 0; j < V; ++j) {
              const float distance = (to_float(packs[i][k].v[j]) - reference) - mean;
              m2 = fmaf(distance, distance, m2);
            }
          }
        }
        const Norm norm{reference, mean, make_scale(sum_lanes(m2, lanes), all, parameters.eps)};
#pragma unroll
        for (int k = 0; k < K; ++k) {
          const int channel = (lane + k * lanes) * V;
          if (pixel < end && channel < channels) {
            Pack<T, V> result;
#pragma unroll
            for (int j = 0; j < V; ++j) {
              result.v[j] =
                  from_float<T>(apply(to_float(packs[i][k].v[j]), norm, weight[k][j], bias[k][j]));
            }
            store_once(out + pixel * channels + channel, result);
          }
        }
      }
    }
  }
}

// A warp a pixel of any size, which it reads three times, from the caches after the first.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    normalise_large_pixels(const T* x, T* out, Shape shape, Parameters parameters) {
  constexpr int kRows = kThreads / kWarp;
  constexpr int kStep = kWarp * V;
  const int first = static_cast<int>(threadIdx.x) % kWarp * V;
  const int row = static_cast<int>(threadIdx.x) / kWarp;
  const float all = static_cast<float>(shape.channels);
  const std::int64_t pixels = shape.images * shape.pixels;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kRows;
  for (std::int64_t pixel = static_cast<std::int64_t>(blockIdx.x) * kRows + row; pixel < pixels;
       pixel += stride) {  // the same for all threads of a warp
    const T* from = x + pixel * shape.channels;
    T* to = out + pixel * shape.channels;
    const float reference = to_float(from[0]);
    __syncwarp();  // all have read it before one overwrites it, where out is x
    float sum = 0.0F;
#pragma unroll 4
    for (std::int64_t channel = first; channel < shape.channels; channel += kStep) {
      const Pack<T, V> pack = load<T, V>(from + channel);
#pragma unroll
      for (int j = 0; j < V; ++j) sum += to_float(pack.v[j]) - reference;
    }
    const float mean = __fdividef(sum_lanes(sum, kWarp), all);
    float m2 = 0.0F;
#pragma unroll 4
    for (std::int64_t channel = first; channel < shape.channels; channel += kStep) {
      const Pack<T, V> pack = load<T, V>(from + channel);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const float distance = (to_float(pack.v[j]) - reference) - mean;
        m2 = fmaf(distance, distance, m2);
      }
    }
    const Norm norm{reference, mean, make_scale(sum_lanes(m2, kWarp), all, parameters.eps)};
    for (std::int64_t channel = first; channel < shape.channels; channel += kStep) {
      const Pack<T, V> pack = load<T, V>(from + channel);
      Pack<T, V> result;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        result.v[j] =
            from_float<T>(apply(to_float(pack.v[j]), norm, weight_of(parameters, channel + j),
                                bias_of(parameters, channel + j)));
      }
      store_once(to + channel, result);
    }
  }
}

// ---- launching ----

template <typename T, int V>
cudaError_t run_planes(const Problem& problem, const Shape& shape, const Parameters& parameters,
                       cudaStream_t stream) {
  constexpr int B = V > 1 ? kPacks : kScalars;
  const PlaneTile tile = tile_planes(shape.channels, V > 1);
  const int threads = tile.lanes * tile.rows;
  auto* kernel = normalise_planes<T, V, B, true, kThreads>;
  if (!tile.resident) {
    kernel = normalise_planes<T, V, kPacks, false, kMaxPlaneThreads>;
  } else if (threads > kThreads) {
    kernel = normalise_planes<T, V, B, true, kMaxPlaneThreads>;
  }
  const std::int64_t columns = static_cast<std::int64_t>(tile.lanes) * V;
  return launch(kernel, shape.images * ceil_div(shape.pixels, columns), threads, stream,
                static_cast<const T*>(problem.x), static_cast<T*>(problem.out), shape, parameters,
                tile);
}

template <typename T, int V>
cudaError_t run_pixels(const Problem& problem, const Shape& shape, const Parameters& parameters,
                       cudaStream_t stream) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t pixels = shape.images * shape.pixels;
  // Weight and bias of a thread's channels are in registers too: 64 at most.
  constexpr int kMaxPacks = 32 / V < kPacks ? 32 / V : kPacks;
  const PixelTile tile = tile_pixels(shape.channels / V, kMaxPacks);
  auto* kernel = normalise_pixels<T, V, 1>;
  switch (tile.packs) {
    case 1:
      break;
    case 2:
      kernel = normalise_pixels<T, V, 2>;
      break;
    case 4:
      kernel = normalise_pixels<T, V, 4>;
      break;
    case 8:
      kernel = normalise_pixels<T, V, kMaxPacks>;
      break;
    default:
      return launch(normalise_large_pixels<T, V>, ceil_div(pixels, kThreads / kWarp), kThreads,
                    stream, x, out, shape, parameters);
  }
  const int at_once = tile.packs * V >= 32 ? 1 : kPacks / tile.packs;
  const std::int64_t slab = slab_pixels(pixels, kThreads / tile.lanes * at_once);
  return launch(kernel, ceil_div(pixels, slab), kThreads, stream, x, out, shape, parameters,
                tile.lanes, slab);
}

}  // namespace

Status run_cuda(const Problem& problem, void* /*workspace*/, std::size_t /*workspace_size*/,
                void* stream) {
  if (problem.empty()) return {};
  constexpr std::int64_t kMaxChannels = std::int64_t{1} << 30;  // counted in an int
  if (problem.channels > kMaxChannels) {
    return Status::invalid(std::string(kName) + ": argument 'x' has " +
                           std::to_string(problem.channels) + " channels; expected at most " +
                           std::to_string(kMaxChannels) + " on CUDA");
  }
  const Shape shape{problem.images, problem.channels, problem.pixels};
  const Parameters parameters{problem.weight, problem.bias, problem.weight_dtype,
                              problem.bias_dtype, problem.eps};
  // One pixel an image is NHWC as well, and there its channels are neighbours.
  const Layout layout = problem.pixels == 1 ? Layout::kNHWC : problem.layout;
  const std::int64_t line = layout == Layout::kNCHW ? problem.pixels : problem.channels;
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  return launch_on(kName, problem.device_index, [&] {
    return dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
      using T = typename decltype(tag)::type;
      constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));
      const bool vectors = splits_into(kVectorBytes, line * sizeof(T), {problem.x, problem.out});
      if (layout == Layout::kNCHW) {
        return vectors ? run_planes<T, kLanes>(problem, shape, parameters, cuda_stream)
                       : run_planes<T, 1>(problem, shape, parameters, cuda_stream);
      }
      return vectors ? run_pixels<T, kLanes>(problem, shape, parameters, cuda_stream)
                     : run_pixels<T, 1>(problem, shape, parameters, cuda_stream);
    });
  });
}

}  // namespace restorert::layer_norm_2d

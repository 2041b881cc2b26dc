// Layer normalisation over the channels of each pixel, as in NAFNet (Chen et al., "Simple Baselines
// for Image Restoration", ECCV 2022, section 3.2; class LayerNorm2d of the authors' code):
//
//   y = (x - mean_c(x)) / sqrt(var_c(x) + eps) * weight[c] + bias[c]
//
// x and y are [N, C, H, W]; mean and variance are those of the C channels of one pixel, the
// variance is the biased one. Statistics and arithmetic are fp32 whatever the dtype of x (their
// sums of squares reach 1.5e7, beyond fp16), and the result is rounded once, when it is stored.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/dispatch.h"
#include "core/macros.h"
#include "core/partition.h"
#include "core/picture.h"
#include "core/status.h"

namespace restorert::layer_norm_2d {

inline constexpr const char* kName = "layer_norm_2d";
inline constexpr float kDefaultEps = 1e-6F;

struct Arguments {
  TensorView x;              // [N, C, H, W]; fp32, fp16 or bf16; contiguous or channels_last
  TensorView weight;         // [C]; fp32 or the dtype of x
  TensorView bias;           // like weight; the dtypes of the two may differ
  TensorView out;            // like x, strides too; the same memory as x or separate memory
  double eps = kDefaultEps;  // >= 0, added to the variance
};

// Arguments that have been checked. The picture is x.
struct Problem : Picture {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  DType weight_dtype = DType::kFloat32;
  DType bias_dtype = DType::kFloat32;
  void* out = nullptr;
  float eps = kDefaultEps;
};

// half_instance_norm.h says what each of these promises.
Status check(const Arguments& arguments, Problem* problem);
void run_cpu(const Problem& problem);
constexpr std::size_t cuda_workspace_size(const Problem& /*problem*/) {
  return 0;
}
Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream);

// ---- scalar mathematics shared by host and device ----

// Statistics of one pixel. The mean is reference + mean, in two parts: `reference` is a number near
// it, and subtracting that first keeps the precision of x where the mean is large.
struct Norm {
  float reference;
  float mean;   // of x - reference
  float scale;  // 1 / sqrt(variance + eps)
};

// `m2` is the sum of squared distances from the mean.
RESTORERT_HD float make_scale(float m2, float channels, float eps) {
#if defined(__CUDA_ARCH__)
  return rsqrtf(__fdividef(m2, channels) + eps);  // within two units in the last place
#else
  return 1.0F / sqrtf(m2 / channels + eps);
#endif
}

RESTORERT_HD float apply(float value, const Norm& norm, float weight, float bias) {
  return ((value - norm.reference) - norm.mean) * norm.scale * weight + bias;
}

// ---- how the CUDA kernels cut up the work; host code, so that it is tested without a GPU ----

inline constexpr int kMaxPlaneThreads = 512;  // of a block, NCHW with many channels
inline constexpr int kPacks = 8;              // vectors that one thread keeps in registers
inline constexpr int kScalars = 16;           // the same where elements are loaded one by one

// The smallest power of two that is at least `value`.
constexpr int power_of_two(std::int64_t value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

// NCHW: how a block covers `lanes` neighbouring vectors of pixels and all channels: `rows` groups
// of lanes take every rows-th channel each. Both are powers of two.
struct PlaneTile {
  int lanes;
  int rows;
  bool resident;  // rows * batch >= channels: a block keeps its pixels in registers, and x is read
                  // once; else what the statistics have read is read again from the L2 cache
};

// More channels leave fewer neighbouring pixels to a block, down to 64 bytes of them (32 elements
// one by one). Up to 1024 channels are resident (256 one by one).
constexpr PlaneTile tile_planes(std::int64_t channels, bool vectors) {
  const int most_rows = vectors ? 128 : 16;
  const int few_rows = vectors ? 32 : 8;
  const std::int64_t batch = vectors ? kPacks : kScalars;
  const std::int64_t wanted = ceil_div(channels, batch);
  const int rows = wanted > most_rows ? most_rows : power_of_two(wanted);
  return {(rows > few_rows ? kMaxPlaneThreads : kThreads) / rows, rows, rows * batch >= channels};
}

// NHWC: `lanes` neighbouring threads, a power of two and at most a warp, share a pixel; each keeps
// `packs` of its vectors. 0 packs: the pixel is too large for registers.
struct PixelTile {
  int lanes;
  int packs;
};

constexpr PixelTile tile_pixels(std::int64_t vectors, int most_packs) {
  if (vectors <= 32) return {power_of_two(vectors), 1};
  const std::int64_t packs = ceil_div(vectors, 32);
  return {32, packs > most_packs ? 0 : power_of_two(packs)};
}

// NHWC: pixels that a block walks over, `step` at a time: several steps, so that loading weight and
// bias is worth it, but not so many that fewer than about 1024 blocks are left.
constexpr std::int64_t slab_pixels(std::int64_t all_pixels, std::int64_t step) {
  const std::int64_t steps = all_pixels / (step * 1024);
  return step * (steps < 1 ? 1 : (steps > 8 ? 8 : steps));
}

}  // namespace restorert::layer_norm_2d

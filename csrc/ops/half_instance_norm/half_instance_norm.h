// Half instance normalisation, the HIN block of HINet (Chen et al., "HINet: Half Instance
// Normalization Network for Image Restoration", CVPRW 2021, section 3.2), with the leaky ReLU that
// follows it:
//
//   y = leaky_relu(cat(instance_norm(x[:, :C/2]) * weight + bias, x[:, C/2:]), negative_slope)
//
// x and y are [N, C, H, W]. Instance norm subtracts the mean over H x W of one channel of one
// picture and divides by sqrt(variance + eps); the variance is the biased one. Statistics and
// arithmetic are fp32 whatever the dtype of x, and the result is rounded once, when it is stored.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/dispatch.h"
#include "core/macros.h"
#include "core/moments.h"
#include "core/partition.h"
#include "core/picture.h"
#include "core/status.h"

namespace restorert::half_instance_norm {

inline constexpr const char* kName = "half_instance_norm";
inline constexpr float kDefaultEps = 1e-5F;
inline constexpr float kDefaultNegativeSlope = 0.2F;

struct Arguments {
  TensorView x;       // [N, C, H, W], C even; fp32, fp16 or bf16; contiguous or channels_last
  TensorView weight;  // [C/2]; fp32 or the dtype of x
  TensorView bias;    // like weight; the dtypes of the two may differ
  TensorView out;     // like x, strides too; the same memory as x or separate memory
  double eps = kDefaultEps;                       // >= 0, added to the variance
  double negative_slope = kDefaultNegativeSlope;  // any finite number
};

// Arguments that have been checked: what CPU and CUDA code take. The picture is x.
struct Problem : Picture {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  DType weight_dtype = DType::kFloat32;
  DType bias_dtype = DType::kFloat32;
  void* out = nullptr;
  float eps = kDefaultEps;
  float negative_slope = kDefaultNegativeSlope;
};

// Checks everything that can be checked without touching the data, and fills `problem`.
//
// An odd C is refused: torch.chunk gives its first part (C+1)/2 channels while HINet builds the
// norm for C//2, so the formula is not defined there.
Status check(const Arguments& arguments, Problem* problem);

// The checks of x alone, for whoever only asks for the workspace.
Status check_input(const TensorView& x);

// Computes on the calling thread and OpenMP's. The result does not depend on the number of threads.
void run_cpu(const Problem& problem);

// Bytes of device memory that run_cuda needs, for this layout; 0 for an empty problem. Never less
// for a larger number of images or pixels, so the size for the largest shape serves all smaller
// ones.
std::size_t cuda_workspace_size(const Problem& problem);

// Enqueues the kernels on `stream` (a cudaStream_t) and returns: no allocation, no synchronisation,
// no atomics on floats, so it can be captured in a graph and repeats bit for bit. `workspace` is
// 16-byte aligned device memory of at least cuda_workspace_size bytes that nothing else uses until
// the kernels are done. A build without the CUDA toolkit has core/no_cuda.cpp in place of this.
Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream);

// ---- scalar mathematics shared by host and device ----

// Normalisation of one channel as y = (x - mean) * scale + shift. Subtracting first keeps the
// precision of x where the mean is large; `shift` holds what rounding took from the mean.
struct Affine {
  float mean;
  float scale;
  float shift;
};

// Leaves every x as it is, the sign of zero included.
RESTORERT_HD Affine identity_affine() {
  return {0.0F, 1.0F, -0.0F};
}

// `moments` describe x - reference; the true mean is reference + moments.mean.
RESTORERT_HD Affine make_affine(float reference, const Moments<float>& moments, float weight,
                                float bias, float eps) {
#if defined(__CUDA_ARCH__)
  // Within two units in the last place, and without the calls that make the compiler spill
  // registers.
  const float scale = weight * rsqrtf(__fdividef(moments.m2, moments.count) + eps);
#else
  const float scale = weight / sqrtf(moments.m2 / moments.count + eps);
#endif
  // Knuth's two-sum: mean + low equals reference + moments.mean without rounding.
  const float mean = reference + moments.mean;
  const float part = mean - reference;
  const float low = (reference - (mean - part)) + (moments.mean - part);
  return {mean, scale, bias - low * scale};
}

RESTORERT_HD float leaky_relu(float value, float negative_slope) {
  return value > 0.0F ? value : value * negative_slope;
}

RESTORERT_HD float apply(float value, const Affine& affine, float negative_slope) {
  return leaky_relu((value - affine.mean) * affine.scale + affine.shift, negative_slope);
}

// ---- how the CUDA kernels cut up the work; host code, so that it is tested without a GPU ----

inline constexpr int kBatch = 8;  // loads in flight in one thread
inline constexpr std::int64_t kTileBytes = kThreads * kBatch * kVectorBytes;  // 32 KiB

// NCHW: statistics of one plane. At most kThreads slabs, so that one thread block merges them with
// one load a thread; slabs start on 16-byte boundaries of the plane.
constexpr Split split_plane(std::int64_t pixels, std::int64_t item_bytes) {
  const std::int64_t lanes = kVectorBytes / item_bytes;
  std::int64_t count = ceil_div(pixels, kTileBytes / item_bytes);
  count = count < 1 ? 1 : (count > kThreads ? kThreads : count);
  return {count, ceil_div(ceil_div(pixels, count), lanes) * lanes};
}

// NHWC: statistics of one picture. About one tile of normalised channels a slab, and at most 2048
// slabs, which the finalising kernel merges.
constexpr Split split_pixels(std::int64_t pixels, std::int64_t channels, std::int64_t item_bytes) {
  const std::int64_t pixel_bytes = (channels / 2) * item_bytes;
  std::int64_t size = pixel_bytes > 0 ? kTileBytes / pixel_bytes : 1;
  size = size < 16 ? 16 : size;
  std::int64_t count = ceil_div(pixels, size);
  count = count < 1 ? 1 : (count > 2048 ? 2048 : count);
  return {count, ceil_div(pixels, count)};
}

}  // namespace restorert::half_instance_norm

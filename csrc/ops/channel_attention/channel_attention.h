// Channel attention with its residual sum: the end of MPRNet's channel attention block, CAB (Zamir
// et al., "Multi-Stage Progressive Image Restoration", CVPR 2021, section 3.2), which MemoryNet
// uses too:
//
//   s = sigmoid(w_up relu(w_down mean_hw(r) + b_down) + b_up)
//   y = r * s + x
//
// r, x and y are [N, C, H, W]; s is one number a picture and channel. Sums and arithmetic are fp32
// (on the CPU partly double) whatever the dtype of r, and the result is rounded once, when it is
// stored.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/dispatch.h"
#include "core/macros.h"
#include "core/partition.h"
#include "core/picture.h"
#include "core/status.h"

namespace restorert::channel_attention {

inline constexpr const char* kName = "channel_attention";

struct Arguments {
  const TensorView& r;       // [N, C, H, W]; fp32, fp16 or bf16; contiguous or channels_last
  const TensorView* x;       // like r; null for y = r * s
  const TensorView& w_down;  // [R, C], R >= 1; fp32 or the dtype of r
  const TensorView& w_up;    // [C, R]; fp32 or the dtype of r
  const TensorView* b_down;  // [R]; fp32 or the dtype of r; null for none, and then b_up too
  const TensorView* b_up;    // [C]; the same
  const TensorView* sums;    // [N, C] fp32: r summed over H x W; null to have it summed here
  const TensorView& out;     // like r, strides too; the same memory as r or x, or separate memory
};

struct Parameter {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
};

// Arguments that have been checked. The picture is r.
struct Problem : Picture {
  std::int64_t hidden = 0;  // R
  const void* r = nullptr;
  const void* x = nullptr;  // null without residual
  Parameter w_down{};
  Parameter w_up{};
  Parameter b_down{};  // null data without biases
  Parameter b_up{};
  const float* sums = nullptr;  // null: the sums are taken here
  void* out = nullptr;
};

// half_instance_norm.h says what each of these promises.
Status check(const Arguments& arguments, Problem* problem);
Status check_input(const TensorView& r);
void run_cpu(const Problem& problem);
std::size_t cuda_workspace_size(const Problem& problem);  // less with `sums` than without
Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream);

// ---- scalar mathematics shared by host and device ----

// Keeps a NaN.
RESTORERT_HD float relu(float value) {
  return value < 0.0F ? 0.0F : value;
}

RESTORERT_HD float sigmoid(float value) {
  return 1.0F / (1.0F + expf(-value));
}

// ---- how the CUDA kernels cut up the work; host code, so that it is tested without a GPU ----

inline constexpr int kBatch = 8;       // loads in flight in one thread that sums
inline constexpr int kApplyBatch = 4;  // the same of r and of x in one that applies
inline constexpr std::int64_t kSlabBytes = std::int64_t{16} << 10;

// NCHW: the sum of one plane. As many slabs as keep a GPU busy with all planes of one picture.
constexpr Split split_plane(std::int64_t pixels, std::int64_t channels, std::int64_t item_bytes) {
  const std::int64_t lanes = kVectorBytes / item_bytes;
  std::int64_t most = 1024 / channels;
  most = most < 4 ? 4 : (most > 256 ? 256 : most);
  std::int64_t count = ceil_div(pixels, kSlabBytes / item_bytes);
  count = count < 1 ? 1 : (count > most ? most : count);
  return {count, ceil_div(ceil_div(pixels, count), lanes) * lanes};
}

// NHWC: the sums of one picture. Few slabs, because one thread block merges them all.
constexpr Split split_pixels(std::int64_t pixels, std::int64_t channels, std::int64_t item_bytes) {
  std::int64_t size = kSlabBytes / (channels * item_bytes);
  size = size < 16 ? 16 : size;
  std::int64_t count = ceil_div(pixels, size);
  count = count < 1 ? 1 : (count > 256 ? 256 : count);
  return {count, ceil_div(pixels, count)};
}

constexpr Split split(Layout layout, std::int64_t pixels, std::int64_t channels,
                      std::int64_t item_bytes) {
  return layout == Layout::kNCHW ? split_plane(pixels, channels, item_bytes)
                                 : split_pixels(pixels, channels, item_bytes);
}

}  // namespace restorert::channel_attention

// The simple gate of NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022,
// section 3.4; class SimpleGate of the authors' code) together with the mean over H x W that the
// simplified channel attention behind it pools (section 3.3), in one pass over x:
//
//   y = x[:, :C] * x[:, C:]
//   mean[n, c] = sum over h, w of y[n, c, h, w] / (H * W)
//
// x is [N, 2C, H, W], y is [N, C, H, W], mean is [N, C] and always fp32: it is taken of the fp32
// products, before they are rounded to the dtype of y. Sums run in an order that the shape fixes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/partition.h"
#include "core/picture.h"
#include "core/status.h"

namespace restorert::simple_gate_mean {

inline constexpr const char* kName = "simple_gate_mean";

struct Arguments {
  TensorView x;     // [N, 2C, H, W]; fp32, fp16 or bf16; contiguous or channels_last
  TensorView out;   // [N, C, H, W]; the dtype and layout of x; memory of its own
  TensorView mean;  // [N, C], fp32, contiguous; memory of its own
};

// Arguments that have been checked. The picture is y; without pixels its means are NaN.
struct Problem : Picture {
  const void* x = nullptr;
  void* out = nullptr;
  float* mean = nullptr;
};

// The picture of y from that of x.
inline Picture gated(Picture picture) {
  picture.channels /= 2;
  return picture;
}

// half_instance_norm.h says what each of these promises.
Status check(const Arguments& arguments, Problem* problem);
Status check_input(const TensorView& x);
void run_cpu(const Problem& problem);
std::size_t cuda_workspace_size(const Problem& problem);
Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream);

// ---- how the CUDA kernels cut up the work; host code, so that it is tested without a GPU ----

inline constexpr int kBatch = 4;  // vectors of each factor in flight in one thread

// The pixels of an image as slabs, each of which gives one sum a channel.
//
// NCHW: at least two rounds of a block's loads a slab, and at most 512 slabs, which start on
// 16-byte boundaries of a plane.
constexpr Split split_planes(std::int64_t pixels, std::int64_t item_bytes) {
  const std::int64_t lanes = kVectorBytes / item_bytes;
  const std::int64_t least = 2 * kThreads * kBatch * lanes;
  const std::int64_t wanted = ceil_div(pixels, least);
  const std::int64_t count = wanted > 512 ? 512 : wanted;
  return {count, ceil_div(ceil_div(pixels, count), lanes) * lanes};
}

// NHWC: about 64 KiB of products a slab, at least 16 pixels, and at most 1024 slabs.
constexpr Split split_pixels(std::int64_t pixels, std::int64_t channels, std::int64_t item_bytes) {
  const std::int64_t least = (std::int64_t{64} << 10) / (channels * item_bytes);
  const std::int64_t wanted = ceil_div(pixels, least < 16 ? 16 : least);
  const std::int64_t count = wanted > 1024 ? 1024 : wanted;
  return {count, ceil_div(pixels, count)};
}

}  // namespace restorert::simple_gate_mean

// The simple gate of NAFNet (ops/simple_gate) together with the mean over H x W that the simplified
// channel attention behind it pools (Chen et al., "Simple Baselines for Image Restoration", ECCV
// 2022, sections 3.3 and 3.4), in one pass over x:
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
#include "core/status.h"
#include "core/tensor_view.h"

namespace restorert::simple_gate_mean {

inline constexpr const char* kName = "simple_gate_mean";

struct Arguments {
  TensorView x;     // [N, 2C, H, W]; fp32, fp16 or bf16; contiguous or channels_last
  TensorView out;   // [N, C, H, W]; the dtype and layout of x; memory of its own
  TensorView mean;  // [N, C], fp32, contiguous; memory of its own
};

// Arguments that have been checked: what CPU and CUDA code take.
struct Problem {
  std::int64_t images = 0;    // N
  std::int64_t channels = 0;  // C, of the product
  std::int64_t pixels = 0;    // H * W; 0 gives means of NaN
  DType dtype = DType::kFloat32;
  Layout layout = Layout::kNCHW;
  const void* x = nullptr;
  void* out = nullptr;
  float* mean = nullptr;
  int device_index = -1;  // CUDA device; -1 is the current one
};

// Checks everything that can be checked without touching the data, and fills `problem`.
Status check(const Arguments& arguments, Problem* problem);

// The checks of x alone, for whoever only asks for the workspace.
Status check_input(const TensorView& x);

// Shape and dtype of `x` as a Problem without pointers, once check_input has passed. The layout is
// NHWC only where the strides cannot be read as NCHW.
Problem describe(const TensorView& x);

// Computes on the calling thread and OpenMP's. The result does not depend on the number of threads.
void run_cpu(const Problem& problem);

// True where this build holds the CUDA kernels.
bool has_cuda();

// Bytes of device memory that run_cuda needs; 0 for an empty problem. Never less for a larger
// number of images or pixels, so the size for the largest shape serves all smaller ones.
std::size_t cuda_workspace_size(const Problem& problem);

// Enqueues the kernels on `stream` (a cudaStream_t) and returns: no allocation, no synchronisation,
// no atomics on floats, so it can be captured in a graph and repeats bit for bit. `workspace` is
// 16-byte aligned device memory of at least cuda_workspace_size bytes that nothing else uses until
// the kernels are done.
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

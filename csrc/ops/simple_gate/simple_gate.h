// The simple gate of NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022,
// section 3.4; class SimpleGate of the authors' code):
//
//   y = x[:, :C] * x[:, C:]
//
// x is [N, 2C, H, W], y is [N, C, H, W]. The product is fp32 whatever the dtype and is rounded
// once. ops/simple_gate_mean takes the mean of y over H x W along in the same pass.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "core/tensor_view.h"

namespace restorert::simple_gate {

inline constexpr const char* kName = "simple_gate";

struct Arguments {
  TensorView x;    // [N, 2C, H, W]; fp32, fp16 or bf16; contiguous or channels_last
  TensorView out;  // [N, C, H, W]; the dtype and layout of x; memory of its own
};

// Arguments that have been checked: what CPU and CUDA code take.
//
// Both layouts are rows of two factors: an image in NCHW, a pixel in NHWC. Row r has the two, of
// `columns` elements each, at x + 2 * r * columns, and their product at out + r * columns.
struct Problem {
  std::int64_t rows = 0;     // N, or N * H * W
  std::int64_t columns = 0;  // C * H * W, or C
  DType dtype = DType::kFloat32;
  const void* x = nullptr;
  void* out = nullptr;
  int device_index = -1;  // CUDA device; -1 is the current one
};

// Checks everything that can be checked without touching the data, and fills `problem`.
Status check(const Arguments& arguments, Problem* problem);

// The checks of x alone, and of both for an op called `op`, with their layout: simple_gate_mean's
// too.
Status check_input(const char* op, const TensorView& x);
Status check_pair(const char* op, const TensorView& x, const TensorView& out, Layout* layout);

// Computes on the calling thread and OpenMP's. Elements are independent of each other.
void run_cpu(const Problem& problem);

// True where this build holds the CUDA kernels.
bool has_cuda();

// Enqueues the kernel on `stream` (a cudaStream_t) and returns: no workspace, no allocation, no
// synchronisation.
Status run_cuda(const Problem& problem, void* stream);

}  // namespace restorert::simple_gate

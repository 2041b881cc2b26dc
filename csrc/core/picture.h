// The sizes, type and layout of a dense [N, C, H, W] tensor: what the problems of all ops begin
// with.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace restorert {

struct Picture {
  std::int64_t images = 0;    // N
  std::int64_t channels = 0;  // C
  std::int64_t pixels = 0;    // H * W; 0 where the tensor is empty
  DType dtype = DType::kFloat32;
  Layout layout = Layout::kNCHW;
  int device_index = -1;  // CUDA device; -1 is the current one

  bool empty() const { return images == 0 || channels == 0 || pixels == 0; }
  std::int64_t bytes() const {
    return images * channels * pixels * static_cast<std::int64_t>(item_size(dtype));
  }
};

// `view` is 4-dimensional and has passed check_tensor.
Picture picture_of(const TensorView& view, Layout layout);

// The same where only `view` is known. NHWC only where its strides cannot be read as NCHW.
Picture picture_of(const TensorView& view);

}  // namespace restorert

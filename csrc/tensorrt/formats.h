// TensorRT's types, formats and sizes in the ops' terms.
#pragma once

#include <NvInferRuntime.h>

#include <initializer_list>

#include "core/tensor_view.h"

namespace restorert::tensorrt {

inline DType dtype_of(nvinfer1::DataType type) {
  if (type == nvinfer1::DataType::kFLOAT) return DType::kFloat32;
  if (type == nvinfer1::DataType::kHALF) return DType::kFloat16;
  if (type == nvinfer1::DataType::kBF16) return DType::kBFloat16;
  return DType::kOther;
}

// Whether a format is dense NHWC: kHWC, which TensorRT has for fp32, or kHWC8, which pads the
// channels of a pixel to a multiple of 8, where C is one. An unknown C (-1) is not.
inline bool is_nhwc(const nvinfer1::PluginTensorDesc& desc) {
  if (desc.dims.nbDims != 4) return false;
  if (desc.format == nvinfer1::TensorFormat::kHWC) {
    return desc.type == nvinfer1::DataType::kFLOAT;
  }
  return desc.format == nvinfer1::TensorFormat::kHWC8 && desc.dims.d[1] > 0 &&
         desc.dims.d[1] % 8 == 0 &&
         (desc.type == nvinfer1::DataType::kHALF || desc.type == nvinfer1::DataType::kBF16);
}

inline bool has_sizes(const nvinfer1::Dims& dims, std::initializer_list<std::int64_t> sizes) {
  if (dims.nbDims != static_cast<std::int32_t>(sizes.size())) return false;
  std::int32_t i = 0;
  for (const std::int64_t size : sizes) {
    if (dims.d[i++] != size) return false;
  }
  return true;
}

// The rank, and no size negative.
inline bool has_rank(const nvinfer1::Dims& dims, std::int32_t rank) {
  if (dims.nbDims != rank) return false;
  for (std::int32_t i = 0; i < rank; ++i) {
    if (dims.d[i] < 0) return false;
  }
  return true;
}

}  // namespace restorert::tensorrt

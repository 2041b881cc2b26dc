// TensorRT's types, formats and sizes in the ops' terms.
#pragma once

#include <NvInferRuntime.h>

#include <initializer_list>
#include <string>

#include "core/picture.h"
#include "core/status.h"

namespace restorert::tensorrt {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

inline DType dtype_of(DataType type) {
  if (type == DataType::kFLOAT) return DType::kFloat32;
  if (type == DataType::kHALF) return DType::kFloat16;
  if (type == DataType::kBF16) return DType::kBFloat16;
  return DType::kOther;
}

inline bool is_linear(const PluginTensorDesc& desc) {
  return desc.format == TensorFormat::kLINEAR;
}

// Whether a format is dense NHWC: kHWC, which TensorRT has for fp32, or kHWC8, which pads the
// channels of a pixel to a multiple of 8, where C is one. An unknown C (-1) is not.
inline bool is_nhwc(const PluginTensorDesc& desc) {
  if (desc.dims.nbDims != 4) return false;
  if (desc.format == TensorFormat::kHWC) return desc.type == DataType::kFLOAT;
  return desc.format == TensorFormat::kHWC8 && desc.dims.d[1] > 0 && desc.dims.d[1] % 8 == 0 &&
         (desc.type == DataType::kHALF || desc.type == DataType::kBF16);
}

// ---- what an input or output of an op may be: `supports` ----

// A picture in fp32, fp16 or bf16, NCHW or dense NHWC.
inline bool is_picture(const PluginTensorDesc& desc) {
  return dtype_of(desc.type) != DType::kOther && (is_linear(desc) || is_nhwc(desc));
}

// In the type and format of `other`.
inline bool is_like(const PluginTensorDesc& desc, const PluginTensorDesc& other) {
  return desc.format == other.format && desc.type == other.type;
}

// Linear, in fp32 or in the type of `x`.
inline bool is_parameter(const PluginTensorDesc& desc, const PluginTensorDesc& x) {
  return is_linear(desc) && (desc.type == DataType::kFLOAT || desc.type == x.type);
}

// ---- sizes: `check_shapes` ----

inline bool has_sizes(const Dims& dims, std::initializer_list<std::int64_t> sizes) {
  if (dims.nbDims != static_cast<std::int32_t>(sizes.size())) return false;
  std::int32_t i = 0;
  for (const std::int64_t size : sizes) {
    if (dims.d[i++] != size) return false;
  }
  return true;
}

// The sizes of a picture, but for the channels.
inline bool has_sizes_of(const Dims& dims, const Dims& picture, std::int64_t channels) {
  return has_sizes(dims, {picture.d[0], channels, picture.d[2], picture.d[3]});
}

// The rank, and no size negative.
inline bool has_rank(const Dims& dims, std::int32_t rank) {
  if (dims.nbDims != rank) return false;
  for (std::int32_t i = 0; i < rank; ++i) {
    if (dims.d[i] < 0) return false;
  }
  return true;
}

inline Status wrong_shape(const char* op, const char* argument, const std::string& expected) {
  return Status::invalid(std::string(op) + ": argument '" + argument +
                         "' has a wrong shape; expected " + expected);
}

// [N, C, H, W], with a C that its format can hold without padding.
inline Status check_picture(const char* op, const char* argument, const PluginTensorDesc& desc) {
  if (!has_rank(desc.dims, 4)) return wrong_shape(op, argument, "[N, C, H, W]");
  if (!is_linear(desc) && !is_nhwc(desc)) {
    return wrong_shape(op, argument, "C to be a multiple of 8 in format kHWC8");
  }
  return {};
}

// `dims` and not the dims of `desc`: a profile asks about its largest shape.
inline Picture picture_of(const PluginTensorDesc& desc, const Dims& dims) {
  Picture picture;
  picture.images = dims.d[0];
  picture.channels = dims.d[1];
  picture.pixels = dims.d[2] * dims.d[3];
  picture.dtype = dtype_of(desc.type);
  picture.layout = is_linear(desc) ? Layout::kNCHW : Layout::kNHWC;
  return picture;
}

}  // namespace restorert::tensorrt

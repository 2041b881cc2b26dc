// A tensor as native code sees it: a pointer and what describes the memory behind it. A view owns
// nothing and carries no framework type, so one build serves every version of torch and TensorRT.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace restorert {

enum class DType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kUInt8, kOther };

// Bytes in one element; 0 for kOther, whose size is unknown here.
constexpr std::size_t item_size(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kUInt8:
      return 1;
    case DType::kOther:
      break;
  }
  return 0;
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kBFloat16;
}

enum class DeviceKind : std::uint8_t { kCpu, kCuda, kOther };

// Memory order of a dense [N, C, H, W] tensor. kNHWC is torch's channels_last, and TensorRT's kHWC8
// when C is a multiple of 8.
enum class Layout : std::uint8_t { kNCHW, kNHWC };

struct TensorView {
  static constexpr int kMaxRank = 5;

  void* data = nullptr;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};
  std::array<std::int64_t, kMaxRank> strides{};  // in elements
  DType dtype = DType::kOther;
  std::string dtype_name;  // as the caller spelled it, for messages
  DeviceKind device = DeviceKind::kCpu;
  std::string device_name;
  int device_index = -1;
};

DType dtype_from_name(const std::string& name);
DeviceKind device_from_name(const std::string& name);

}  // namespace restorert

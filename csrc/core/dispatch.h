// From a run-time dtype to a compile-time type.
#pragma once

#include "core/scalar.h"
#include "core/tensor_view.h"

namespace restorert {

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls `function(TypeTag<T>{})` with the storage type of `dtype`, which a check has found to be
// floating; anything else returns `fallback`.
template <typename Result, typename Function>
Result dispatch_floating(DType dtype, Result fallback, Function&& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(TypeTag<float>{});
    case DType::kFloat16:
      return function(TypeTag<Half>{});
    case DType::kBFloat16:
      return function(TypeTag<BFloat16>{});
    case DType::kUInt8:
    case DType::kOther:
      break;
  }
  return fallback;
}

// Element `index` of a parameter vector of type `dtype` (fp32, fp16 or bf16), as fp32.
RESTORERT_HD float load_parameter(const void* data, DType dtype, std::int64_t index) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(data)[index];
  if (dtype == DType::kFloat16) return to_float(static_cast<const Half*>(data)[index]);
  return to_float(static_cast<const BFloat16*>(data)[index]);
}

}  // namespace restorert

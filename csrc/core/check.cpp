#include "core/check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "core/picture.h"

namespace restorert {
namespace {

std::string tuple_text(const std::array<std::int64_t, TensorView::kMaxRank>& values, int count) {
  std::string text = "(";
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(values[static_cast<std::size_t>(i)]);
  }
  return text + (count == 1 ? ",)" : ")");
}

std::string device_text(const TensorView& view) {
  if (view.device == DeviceKind::kCuda && view.device_index >= 0) {
    return "cuda:" + std::to_string(view.device_index);
  }
  return view.device_name;
}

std::string subject(const char* op, const char* name) {
  return std::string(op) + ": argument '" + name + "' ";
}

// True when the byte size of the view does not fit in 63 bits.
bool size_overflows(const TensorView& view) {
  std::uint64_t bytes = item_size(view.dtype);
  bool empty = false;
  for (int i = 0; i < view.rank; ++i) {
    empty = empty || view.shape[static_cast<std::size_t>(i)] == 0;
  }
  if (empty) return false;
  for (int i = 0; i < view.rank; ++i) {
    const auto size = static_cast<std::uint64_t>(view.shape[static_cast<std::size_t>(i)]);
    if (bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / size) {
      return true;
    }
    bytes *= size;
  }
  return false;
}

bool overlaps(const TensorView& a, const TensorView& b) {
  const auto a_bytes = static_cast<std::uintptr_t>(element_count(a)) * item_size(a.dtype);
  const auto b_bytes = static_cast<std::uintptr_t>(element_count(b)) * item_size(b.dtype);
  if (a_bytes == 0 || b_bytes == 0) return false;
  const auto a_first = reinterpret_cast<std::uintptr_t>(a.data);
  const auto b_first = reinterpret_cast<std::uintptr_t>(b.data);
  // Differences, so that a range ending at the top of the address space cannot wrap around.
  return a_first <= b_first ? b_first - a_first < a_bytes : a_first - b_first < b_bytes;
}

}  // namespace

DType dtype_from_name(const std::string& name) {
  if (name == "float32") return DType::kFloat32;
  if (name == "float16") return DType::kFloat16;
  if (name == "bfloat16") return DType::kBFloat16;
  if (name == "uint8") return DType::kUInt8;
  return DType::kOther;
}

DeviceKind device_from_name(const std::string& name) {
  if (name == "cpu") return DeviceKind::kCpu;
  if (name == "cuda") return DeviceKind::kCuda;
  return DeviceKind::kOther;
}

std::int64_t element_count(const TensorView& view) {
  std::int64_t count = 1;
  for (int i = 0; i < view.rank; ++i) {
    // Zero first: the other sizes of an empty tensor may be anything.
    if (view.shape[static_cast<std::size_t>(i)] == 0) return 0;
  }
  for (int i = 0; i < view.rank; ++i) count *= view.shape[static_cast<std::size_t>(i)];
  return count;
}

bool has_layout(const TensorView& view, Layout layout) {
  if (view.rank != 4) return false;
  if (element_count(view) == 0) return true;
  constexpr std::array<std::size_t, 4> kOrderNCHW{3, 2, 1, 0};
  constexpr std::array<std::size_t, 4> kOrderNHWC{1, 3, 2, 0};
  std::int64_t expected = 1;
  for (const std::size_t axis : layout == Layout::kNCHW ? kOrderNCHW : kOrderNHWC) {
    // The stride of an axis of length 1 is never used, and frameworks leave anything in it.
    if (view.shape[axis] != 1 && view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

Picture picture_of(const TensorView& view, Layout layout) {
  Picture picture;
  picture.images = view.shape[0];
  picture.channels = view.shape[1];
  // The product may overflow where another size is 0.
  picture.pixels = element_count(view) > 0 ? view.shape[2] * view.shape[3] : 0;
  picture.dtype = view.dtype;
  picture.layout = layout;
  picture.device_index = view.device_index;
  return picture;
}

Picture picture_of(const TensorView& view) {
  return picture_of(view, has_layout(view, Layout::kNCHW) ? Layout::kNCHW : Layout::kNHWC);
}

Status check_tensor(const char* op, const Argument& argument, int rank, const char* axes) {
  const TensorView& view = argument.view;
  if (view.rank != rank) {
    return Status::invalid(subject(op, argument.name) + "has " + std::to_string(view.rank) +
                           " dimensions; expected " + std::to_string(rank) + " " + axes);
  }
  if (!is_floating(view.dtype)) {
    return {StatusCode::kUnsupportedDType, subject(op, argument.name) + "has dtype " +
                                               view.dtype_name +
                                               "; expected float32, float16 or bfloat16"};
  }
  if (view.device == DeviceKind::kOther) {
    return Status::invalid(subject(op, argument.name) + "is on device " + view.device_name +
                           "; expected cpu or cuda");
  }
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[static_cast<std::size_t>(i)] < 0) {
      return Status::invalid(subject(op, argument.name) + "has shape " +
                             tuple_text(view.shape, view.rank) + "; expected sizes >= 0");
    }
  }
  if (size_overflows(view)) {
    return Status::invalid(subject(op, argument.name) + "has shape " +
                           tuple_text(view.shape, view.rank) +
                           "; expected a tensor whose size in bytes fits in 63 bits");
  }
  if (element_count(view) > 0) {
    if (view.data == nullptr) {
      return Status::invalid(subject(op, argument.name) +
                             "is a null pointer; expected the address of its data");
    }
    if (reinterpret_cast<std::uintptr_t>(view.data) % item_size(view.dtype) != 0) {
      return Status::invalid(subject(op, argument.name) +
                             "is misaligned; expected an address that is a multiple of its "
                             "element size");
    }
  }
  return {};
}

Status check_same_device(const char* op, const Argument& argument, const Argument& reference) {
  if (argument.view.device != reference.view.device ||
      argument.view.device_index != reference.view.device_index) {
    return Status::invalid(
        subject(op, argument.name) + "is on device " + device_text(argument.view) + "; expected " +
        device_text(reference.view) + ", the device of '" + reference.name + "'");
  }
  return {};
}

Status check_dtype(const char* op, const Argument& argument, const Argument& reference,
                   bool float32_too) {
  const TensorView& view = argument.view;
  if (view.dtype == reference.view.dtype) return {};
  if (float32_too && view.dtype == DType::kFloat32) return {};
  std::string expected = reference.view.dtype_name;
  if (float32_too && expected != "float32") expected = "float32 or " + expected;
  return {StatusCode::kUnsupportedDType, subject(op, argument.name) + "has dtype " +
                                             view.dtype_name + "; expected " + expected +
                                             ", the dtype of '" + reference.name + "'"};
}

Status check_parameter(const char* op, const Argument& argument, std::int64_t length,
                       const Argument& reference) {
  const TensorView& view = argument.view;
  RESTORERT_RETURN_IF_ERROR(check_tensor(op, argument, 1, "(a vector)"));
  if (view.shape[0] != length) {
    return Status::invalid(subject(op, argument.name) + "has length " +
                           std::to_string(view.shape[0]) + "; expected " + std::to_string(length));
  }
  RESTORERT_RETURN_IF_ERROR(check_dtype(op, argument, reference, true));
  if (view.shape[0] > 1 && view.strides[0] != 1) {
    return Status::invalid(subject(op, argument.name) + "has stride " +
                           std::to_string(view.strides[0]) + "; expected a contiguous vector");
  }
  return check_same_device(op, argument, reference);
}

Status check_matrix(const char* op, const Argument& argument, std::int64_t rows,
                    std::int64_t columns, const char* axes, bool parameter,
                    const Argument& reference) {
  const TensorView& view = argument.view;
  RESTORERT_RETURN_IF_ERROR(check_tensor(op, argument, 2, axes));
  RESTORERT_RETURN_IF_ERROR(check_shape(op, argument, {rows, columns}, axes));
  if (parameter) {
    RESTORERT_RETURN_IF_ERROR(check_dtype(op, argument, reference, true));
  } else if (view.dtype != DType::kFloat32) {
    return {StatusCode::kUnsupportedDType,
            subject(op, argument.name) + "has dtype " + view.dtype_name + "; expected float32"};
  }
  const bool dense =
      (rows <= 1 || view.strides[0] == columns) && (columns <= 1 || view.strides[1] == 1);
  if (element_count(view) > 0 && !dense) {
    return Status::invalid(subject(op, argument.name) + "has strides " +
                           tuple_text(view.strides, 2) + "; expected a contiguous matrix");
  }
  return check_same_device(op, argument, reference);
}

Status check_like(const char* op, const Argument& argument, const Argument& reference) {
  RESTORERT_RETURN_IF_ERROR(check_tensor(op, argument, 4, "(N, C, H, W)"));
  RESTORERT_RETURN_IF_ERROR(check_same_device(op, argument, reference));
  RESTORERT_RETURN_IF_ERROR(check_dtype(op, argument, reference, false));
  const auto& sizes = reference.view.shape;
  return check_shape(op, argument, {sizes[0], sizes[1], sizes[2], sizes[3]},
                     "the shape of '" + std::string(reference.name) + "'");
}

Status check_elementwise_pair(const char* op, const Argument& input, const Argument& output,
                              Layout* layout) {
  RESTORERT_RETURN_IF_ERROR(check_like(op, output, input));
  RESTORERT_RETURN_IF_ERROR(check_one_layout(op, {input, output}, layout));
  return check_in_place_or_disjoint(op, output, input);
}

Status check_shape(const char* op, const Argument& argument,
                   std::initializer_list<std::int64_t> sizes, const std::string& why) {
  const TensorView& view = argument.view;
  TensorView expected;
  expected.rank = static_cast<int>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), expected.shape.begin());
  if (view.rank == expected.rank && view.shape == expected.shape) return {};
  return Status::invalid(subject(op, argument.name) + "has shape " +
                         tuple_text(view.shape, view.rank) + "; expected " +
                         tuple_text(expected.shape, expected.rank) + ", " + why);
}

Status check_one_layout(const char* op, std::initializer_list<Argument> arguments, Layout* layout) {
  // A tensor with one channel or one pixel is both; then the others decide.
  for (const Layout candidate : {Layout::kNCHW, Layout::kNHWC}) {
    bool all = true;
    for (const Argument& argument : arguments) all = all && has_layout(argument.view, candidate);
    if (all) {
      *layout = candidate;
      return {};
    }
  }
  const Argument& first = *arguments.begin();
  const bool nchw = has_layout(first.view, Layout::kNCHW);
  if (!nchw && !has_layout(first.view, Layout::kNHWC)) {
    return Status::invalid(subject(op, first.name) + "has strides " +
                           tuple_text(first.view.strides, 4) + " for shape " +
                           tuple_text(first.view.shape, 4) +
                           "; expected a contiguous or channels_last tensor");
  }
  for (const Argument& argument : arguments) {
    if (has_layout(argument.view, nchw ? Layout::kNCHW : Layout::kNHWC)) continue;
    return Status::invalid(subject(op, argument.name) + "has strides " +
                           tuple_text(argument.view.strides, 4) + "; expected a " +
                           (nchw ? "contiguous" : "channels_last") + " tensor, as '" + first.name +
                           "' is");
  }
  return {};
}

Status check_in_place_or_disjoint(const char* op, const Argument& output, const Argument& input) {
  // In place is safe because every element is read before it is written, by the same thread.
  if (output.view.data != input.view.data && overlaps(output.view, input.view)) {
    return Status::invalid(subject(op, output.name) + "overlaps '" + input.name +
                           "'; expected the same memory (in place) or separate memory");
  }
  return {};
}

Status check_disjoint(const char* op, const Argument& output, const Argument& input) {
  if (overlaps(output.view, input.view)) {
    return Status::invalid(subject(op, output.name) + "overlaps '" + input.name +
                           "'; expected separate memory");
  }
  return {};
}

Status check_workspace(const char* op, const Argument& workspace, const Argument& reference) {
  const TensorView& view = workspace.view;
  if (view.dtype != DType::kUInt8) {
    return {StatusCode::kUnsupportedDType,
            subject(op, workspace.name) + "has dtype " + view.dtype_name + "; expected uint8"};
  }
  if (view.rank != 1 || view.shape[0] < 0 || (view.shape[0] > 1 && view.strides[0] != 1)) {
    return Status::invalid(subject(op, workspace.name) +
                           "is not a contiguous vector; expected one of bytes");
  }
  return check_same_device(op, workspace, reference);
}

Status check_workspace_memory(const char* op, const void* workspace, std::size_t size,
                              std::size_t needed) {
  if (size < needed) {
    return Status::invalid(subject(op, "workspace") + "has " + std::to_string(size) +
                           " bytes; expected at least " + std::to_string(needed));
  }
  if (needed > 0 &&
      (workspace == nullptr || reinterpret_cast<std::uintptr_t>(workspace) % 16 != 0)) {
    return Status::invalid(subject(op, "workspace") +
                           "is null or misaligned; expected an address that is a multiple of 16");
  }
  return {};
}

Status check_number(const char* op, const char* name, double value, double minimum) {
  if (std::isfinite(value) && value >= minimum &&
      std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max())) {
    return {};
  }
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "is %g; expected ", value);
  std::string message = subject(op, name) + text.data() + "a finite float32";
  if (std::isfinite(minimum)) {
    std::snprintf(text.data(), text.size(), " >= %g", minimum);
    message += text.data();
  }
  return Status::invalid(message);
}

}  // namespace restorert

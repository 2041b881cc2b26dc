#include <limits>

#include "core/check.h"
#include "ops/memory_read/memory_read.h"

namespace restorert::memory_read {
namespace {

// A [prototypes, channels] matrix in fp32.
Status check_memory(const Argument& argument, std::int64_t channels, const Argument& x) {
  const TensorView& view = argument.view;
  const std::string subject = std::string(kName) + ": argument '" + argument.name + "' ";
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, argument, 2, "(prototypes, C)"));
  if (view.dtype != DType::kFloat32) {
    return {StatusCode::kUnsupportedDType,
            subject + "has dtype " + view.dtype_name + "; expected float32"};
  }
  if (view.shape[0] < 1 || view.shape[0] > kMaxPrototypes) {
    return Status::invalid(subject + "has " + std::to_string(view.shape[0]) +
                           " prototypes; expected 1 to " + std::to_string(kMaxPrototypes));
  }
  if (view.shape[1] != channels) {
    return Status::invalid(subject + "has " + std::to_string(view.shape[1]) +
                           " channels; expected " + std::to_string(channels) +
                           ", the channels of 'x'");
  }
  if ((view.shape[0] > 1 && view.strides[0] != channels) ||
      (channels > 1 && view.strides[1] != 1)) {
    return Status::invalid(subject + "has strides (" + std::to_string(view.strides[0]) + ", " +
                           std::to_string(view.strides[1]) + "); expected a contiguous matrix");
  }
  return check_same_device(kName, argument, x);
}

}  // namespace

Status check(const Arguments& arguments, Problem* problem) {
  const Argument x{"x", arguments.x};
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, x, 4, "(N, C, H, W)"));
  const std::int64_t channels = arguments.x.shape[1];
  if (channels < 1 || channels > kMaxChannels) {
    return Status::invalid(std::string(kName) + ": argument 'x' has " + std::to_string(channels) +
                           " channels; expected 1 to " + std::to_string(kMaxChannels));
  }
  const std::array<Argument, 3> memories{{{"part", arguments.part},
                                          {"instance", arguments.instance},
                                          {"semantic", arguments.semantic}}};
  const std::array<Argument, 3> outputs{{{"part_out", arguments.part_out},
                                         {"instance_out", arguments.instance_out},
                                         {"semantic_out", arguments.semantic_out}}};
  for (const Argument& memory : memories) {
    RESTORERT_RETURN_IF_ERROR(check_memory(memory, channels, x));
  }
  for (const Argument& output : outputs) {
    Layout layout = Layout::kNCHW;
    RESTORERT_RETURN_IF_ERROR(check_elementwise_pair(kName, x, output, &layout));
    RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, output, x));
    for (const Argument& memory : memories) {
      RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, output, memory));
    }
    for (const Argument& other : outputs) {
      if (&other == &output) break;
      RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, output, other));
    }
  }
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(
      check_one_layout(kName, {x, outputs[0], outputs[1], outputs[2]}, &layout));
  RESTORERT_RETURN_IF_ERROR(check_number(kName, "shrink", arguments.shrink, 0.0));

  *problem = Problem{};
  if (element_count(arguments.x) > 0) {
    // Only now: the product of the other sizes may overflow where one is 0.
    problem->images = arguments.x.shape[0];
    problem->channels = channels;
    problem->pixels = arguments.x.shape[2] * arguments.x.shape[3];
  }
  problem->dtype = arguments.x.dtype;
  problem->layout = layout;
  problem->x = arguments.x.data;
  for (std::size_t i = 0; i < memories.size(); ++i) {
    problem->stages[i] = {static_cast<const float*>(memories[i].view.data),
                          memories[i].view.shape[0], outputs[i].view.data};
  }
  problem->shrink = static_cast<float>(arguments.shrink);
  problem->device_index = arguments.x.device_index;
  return {};
}

}  // namespace restorert::memory_read

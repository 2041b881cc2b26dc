#include <limits>

#include "core/check.h"
#include "ops/memory_read/memory_read.h"

namespace restorert::memory_read {
namespace {

Status check_memory(const Argument& memory, std::int64_t channels, const Argument& x) {
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, memory, 2, "(prototypes, C)"));
  const std::int64_t prototypes = memory.view.shape[0];
  if (prototypes < 1 || prototypes > kMaxPrototypes) {
    return Status::invalid(std::string(kName) + ": argument '" + memory.name + "' has " +
                           std::to_string(prototypes) + " prototypes; expected 1 to " +
                           std::to_string(kMaxPrototypes));
  }
  return check_matrix(kName, memory, prototypes, channels, "(prototypes, C)", false, x);
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
    RESTORERT_RETURN_IF_ERROR(check_like(kName, output, x));
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

  *problem = {picture_of(arguments.x, layout)};
  problem->x = arguments.x.data;
  for (std::size_t i = 0; i < memories.size(); ++i) {
    problem->stages[i] = {static_cast<const float*>(memories[i].view.data),
                          memories[i].view.shape[0], outputs[i].view.data};
  }
  problem->shrink = static_cast<float>(arguments.shrink);
  return {};
}

}  // namespace restorert::memory_read

#include "core/check.h"
#include "ops/simple_gate/simple_gate.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace restorert::simple_gate_mean {
namespace {

Status check_mean(const Argument& mean, const Argument& x) {
  const TensorView& view = mean.view;
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, mean, 2, "(N, C)"));
  const std::string subject = std::string(kName) + ": argument '" + mean.name + "' ";
  const auto pair = [](std::int64_t a, std::int64_t b) {
    return "(" + std::to_string(a) + ", " + std::to_string(b) + ")";
  };
  const std::int64_t images = x.view.shape[0];
  const std::int64_t channels = x.view.shape[1] / 2;
  if (view.shape[0] != images || view.shape[1] != channels) {
    return Status::invalid(subject + "has shape " + pair(view.shape[0], view.shape[1]) +
                           "; expected " + pair(images, channels) +
                           ", images and half of the channels of 'x'");
  }
  if (view.dtype != DType::kFloat32) {
    return {StatusCode::kUnsupportedDType,
            subject + "has dtype " + view.dtype_name + "; expected float32"};
  }
  if ((channels > 1 && view.strides[1] != 1) ||
      (images > 1 && channels > 0 && view.strides[0] != channels)) {
    return Status::invalid(subject + "has strides " + pair(view.strides[0], view.strides[1]) +
                           "; expected a contiguous matrix");
  }
  return check_same_device(kName, mean, x);
}

}  // namespace

Status check_input(const TensorView& x) {
  return simple_gate::check_input(kName, x);
}

Problem describe(const TensorView& x) {
  Problem problem;
  problem.images = x.shape[0];
  problem.channels = x.shape[1] / 2;
  if (element_count(x) > 0) {
    // Only then: the product of the other sizes may overflow where one is 0.
    problem.pixels = x.shape[2] * x.shape[3];
  }
  problem.dtype = x.dtype;
  problem.layout = has_layout(x, Layout::kNCHW) ? Layout::kNCHW : Layout::kNHWC;
  problem.device_index = x.device_index;
  return problem;
}

Status check(const Arguments& arguments, Problem* problem) {
  const Argument x{"x", arguments.x};
  const Argument out{"out", arguments.out};
  const Argument mean{"mean", arguments.mean};
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(simple_gate::check_pair(kName, arguments.x, arguments.out, &layout));
  RESTORERT_RETURN_IF_ERROR(check_mean(mean, x));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, mean, x));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, mean, out));

  *problem = describe(arguments.x);
  problem->layout = layout;
  problem->x = arguments.x.data;
  problem->out = arguments.out.data;
  problem->mean = static_cast<float*>(arguments.mean.data);
  return {};
}

std::size_t cuda_workspace_size(const Problem& problem) {
  if (problem.images == 0 || problem.channels == 0 || problem.pixels == 0) return 0;
  const auto item_bytes = static_cast<std::int64_t>(item_size(problem.dtype));
  const Split split = problem.layout == Layout::kNCHW
                          ? split_planes(problem.pixels, item_bytes)
                          : split_pixels(problem.pixels, problem.channels, item_bytes);
  return static_cast<std::size_t>(problem.images * split.count * problem.channels) * sizeof(float);
}

}  // namespace restorert::simple_gate_mean

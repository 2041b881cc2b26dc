#include "core/check.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace restorert::simple_gate_mean {

Status check_input(const TensorView& x) {
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, {"x", x}, 4, "(N, 2 * C, H, W)"));
  if (x.shape[1] % 2 != 0) {
    return Status::invalid(std::string(kName) + ": argument 'x' has " + std::to_string(x.shape[1]) +
                           " channels; expected an even number, two halves to be multiplied");
  }
  return {};
}

Status check(const Arguments& arguments, Problem* problem) {
  const Argument x{"x", arguments.x};
  const Argument out{"out", arguments.out};
  const Argument mean{"mean", arguments.mean};
  RESTORERT_RETURN_IF_ERROR(check_input(x.view));
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, out, 4, "(N, C, H, W)"));
  const auto& sizes = x.view.shape;
  RESTORERT_RETURN_IF_ERROR(check_shape(kName, out, {sizes[0], sizes[1] / 2, sizes[2], sizes[3]},
                                        "half of the channels of 'x'"));
  RESTORERT_RETURN_IF_ERROR(check_same_device(kName, out, x));
  RESTORERT_RETURN_IF_ERROR(check_dtype(kName, out, x, false));
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(check_one_layout(kName, {x, out}, &layout));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, x));
  RESTORERT_RETURN_IF_ERROR(check_matrix(kName, mean, sizes[0], sizes[1] / 2, "(N, C)", false, x));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, mean, x));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, mean, out));

  *problem = {picture_of(arguments.out, layout)};
  problem->x = arguments.x.data;
  problem->out = arguments.out.data;
  problem->mean = static_cast<float*>(arguments.mean.data);
  return {};
}

std::size_t cuda_workspace_size(const Problem& problem) {
  if (problem.empty()) return 0;
  const auto item_bytes = static_cast<std::int64_t>(item_size(problem.dtype));
  const Split split = problem.layout == Layout::kNCHW
                          ? split_planes(problem.pixels, item_bytes)
                          : split_pixels(problem.pixels, problem.channels, item_bytes);
  return static_cast<std::size_t>(problem.images * split.count * problem.channels) * sizeof(float);
}

}  // namespace restorert::simple_gate_mean

#include <limits>

#include "core/check.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace restorert::half_instance_norm {

Status check_input(const TensorView& x) {
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, {"x", x}, 4, "(N, C, H, W)"));
  if (x.shape[1] % 2 != 0) {
    return Status::invalid(std::string(kName) + ": argument 'x' has " + std::to_string(x.shape[1]) +
                           " channels; expected an even number, half of which are normalised");
  }
  return {};
}

Status check(const Arguments& arguments, Problem* problem) {
  const Argument x{"x", arguments.x};
  const Argument weight{"weight", arguments.weight};
  const Argument bias{"bias", arguments.bias};
  const Argument out{"out", arguments.out};
  RESTORERT_RETURN_IF_ERROR(check_input(arguments.x));
  const std::int64_t half = arguments.x.shape[1] / 2;
  RESTORERT_RETURN_IF_ERROR(check_parameter(kName, weight, half, x));
  RESTORERT_RETURN_IF_ERROR(check_parameter(kName, bias, half, x));
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(check_elementwise_pair(kName, x, out, &layout));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, weight));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, bias));
  RESTORERT_RETURN_IF_ERROR(check_number(kName, "eps", arguments.eps, 0.0));
  RESTORERT_RETURN_IF_ERROR(check_number(kName, "negative_slope", arguments.negative_slope,
                                         -std::numeric_limits<double>::infinity()));

  *problem = {picture_of(arguments.x, layout)};
  problem->x = arguments.x.data;
  problem->weight = arguments.weight.data;
  problem->bias = arguments.bias.data;
  problem->weight_dtype = arguments.weight.dtype;
  problem->bias_dtype = arguments.bias.dtype;
  problem->out = arguments.out.data;
  problem->eps = static_cast<float>(arguments.eps);
  problem->negative_slope = static_cast<float>(arguments.negative_slope);
  return {};
}

std::size_t cuda_workspace_size(const Problem& problem) {
  if (problem.empty()) return 0;
  constexpr std::int64_t kPartialBytes = 16;  // reference, mean, m2, count
  constexpr std::int64_t kAffineBytes = 12;   // mean, scale, shift
  const auto item_bytes = static_cast<std::int64_t>(item_size(problem.dtype));
  const std::int64_t normalised = problem.images * (problem.channels / 2);
  if (problem.layout == Layout::kNCHW) {
    return static_cast<std::size_t>(normalised * split_plane(problem.pixels, item_bytes).count *
                                    kPartialBytes);
  }
  const Split split = split_pixels(problem.pixels, problem.channels, item_bytes);
  return static_cast<std::size_t>(normalised * (split.count * kPartialBytes + kAffineBytes));
}

}  // namespace restorert::half_instance_norm

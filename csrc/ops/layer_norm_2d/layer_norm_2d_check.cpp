#include "core/check.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace restorert::layer_norm_2d {

Status check_input(const TensorView& x) {
  return check_tensor(kName, {"x", x}, 4, "(N, C, H, W)");
}

Status check(const Arguments& arguments, Problem* problem) {
  const Argument x{"x", arguments.x};
  const Argument weight{"weight", arguments.weight};
  const Argument bias{"bias", arguments.bias};
  const Argument out{"out", arguments.out};
  RESTORERT_RETURN_IF_ERROR(check_input(arguments.x));
  const std::int64_t channels = arguments.x.shape[1];
  RESTORERT_RETURN_IF_ERROR(check_parameter(kName, weight, channels, x));
  RESTORERT_RETURN_IF_ERROR(check_parameter(kName, bias, channels, x));
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(check_elementwise_pair(kName, x, out, &layout));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, weight));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, bias));
  RESTORERT_RETURN_IF_ERROR(check_number(kName, "eps", arguments.eps, 0.0));

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
  problem->weight = arguments.weight.data;
  problem->bias = arguments.bias.data;
  problem->weight_dtype = arguments.weight.dtype;
  problem->bias_dtype = arguments.bias.dtype;
  problem->out = arguments.out.data;
  problem->eps = static_cast<float>(arguments.eps);
  problem->device_index = arguments.x.device_index;
  return {};
}

}  // namespace restorert::layer_norm_2d

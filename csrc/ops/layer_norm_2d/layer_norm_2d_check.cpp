#include "core/check.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace restorert::layer_norm_2d {

Status check(const Arguments& arguments, Problem* problem) {
  const Argument x{"x", arguments.x};
  const Argument weight{"weight", arguments.weight};
  const Argument bias{"bias", arguments.bias};
  const Argument out{"out", arguments.out};
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, x, 4, "(N, C, H, W)"));
  const std::int64_t channels = arguments.x.shape[1];
  RESTORERT_RETURN_IF_ERROR(check_parameter(kName, weight, channels, x));
  RESTORERT_RETURN_IF_ERROR(check_parameter(kName, bias, channels, x));
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(check_elementwise_pair(kName, x, out, &layout));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, weight));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, bias));
  RESTORERT_RETURN_IF_ERROR(check_number(kName, "eps", arguments.eps, 0.0));

  *problem = {picture_of(arguments.x, layout)};
  problem->x = arguments.x.data;
  problem->weight = arguments.weight.data;
  problem->bias = arguments.bias.data;
  problem->weight_dtype = arguments.weight.dtype;
  problem->bias_dtype = arguments.bias.dtype;
  problem->out = arguments.out.data;
  problem->eps = static_cast<float>(arguments.eps);
  return {};
}

}  // namespace restorert::layer_norm_2d

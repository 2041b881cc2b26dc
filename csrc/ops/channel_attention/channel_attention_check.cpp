#include "core/check.h"
#include "ops/channel_attention/channel_attention.h"

namespace restorert::channel_attention {

Status check_input(const TensorView& r) {
  return check_tensor(kName, {"r", r}, 4, "(N, C, H, W)");
}

Status check(const Arguments& arguments, Problem* problem) {
  const Argument r{"r", arguments.r};
  const Argument out{"out", arguments.out};
  const Argument w_down{"w_down", arguments.w_down};
  const Argument w_up{"w_up", arguments.w_up};
  RESTORERT_RETURN_IF_ERROR(check_input(arguments.r));
  const std::int64_t channels = arguments.r.shape[1];
  const std::int64_t hidden = arguments.w_down.shape[0];
  // Rank and sizes of w_down first: `hidden` is read off it.
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, w_down, 2, "(R, C)"));
  if (hidden < 1) {
    return Status::invalid(std::string(kName) +
                           ": argument 'w_down' has no rows; expected at least 1");
  }
  RESTORERT_RETURN_IF_ERROR(check_matrix(kName, w_down, hidden, channels, "(R, C)", true, r));
  RESTORERT_RETURN_IF_ERROR(check_matrix(kName, w_up, channels, hidden, "(C, R)", true, r));
  if ((arguments.b_down == nullptr) != (arguments.b_up == nullptr)) {
    return Status::invalid(std::string(kName) + ": argument '" +
                           (arguments.b_down == nullptr ? "b_down" : "b_up") +
                           "' is missing; expected both biases or neither");
  }
  if (arguments.b_down != nullptr) {
    RESTORERT_RETURN_IF_ERROR(check_parameter(kName, {"b_down", *arguments.b_down}, hidden, r));
    RESTORERT_RETURN_IF_ERROR(check_parameter(kName, {"b_up", *arguments.b_up}, channels, r));
  }
  if (arguments.sums != nullptr) {
    RESTORERT_RETURN_IF_ERROR(check_matrix(kName, {"sums", *arguments.sums}, arguments.r.shape[0],
                                           channels, "(N, C)", false, r));
  }
  Layout layout = Layout::kNCHW;
  if (arguments.x != nullptr) {
    const Argument x{"x", *arguments.x};
    RESTORERT_RETURN_IF_ERROR(check_like(kName, x, r));
    RESTORERT_RETURN_IF_ERROR(check_one_layout(kName, {r, x}, &layout));
  }
  RESTORERT_RETURN_IF_ERROR(check_elementwise_pair(kName, r, out, &layout));
  if (arguments.x != nullptr) {
    RESTORERT_RETURN_IF_ERROR(check_in_place_or_disjoint(kName, out, {"x", *arguments.x}));
  }
  for (const auto& [name, view] : {std::pair{"w_down", &arguments.w_down},
                                   {"w_up", &arguments.w_up},
                                   {"b_down", arguments.b_down},
                                   {"b_up", arguments.b_up},
                                   {"sums", arguments.sums}}) {
    if (view != nullptr) RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, out, {name, *view}));
  }

  *problem = {picture_of(arguments.r, layout)};
  problem->hidden = hidden;
  problem->r = arguments.r.data;
  problem->out = arguments.out.data;
  if (arguments.x != nullptr) problem->x = arguments.x->data;
  problem->w_down = {arguments.w_down.data, arguments.w_down.dtype};
  problem->w_up = {arguments.w_up.data, arguments.w_up.dtype};
  if (arguments.b_down != nullptr) {
    problem->b_down = {arguments.b_down->data, arguments.b_down->dtype};
    problem->b_up = {arguments.b_up->data, arguments.b_up->dtype};
  }
  if (arguments.sums != nullptr) problem->sums = static_cast<const float*>(arguments.sums->data);
  return {};
}

std::size_t cuda_workspace_size(const Problem& problem) {
  if (problem.empty()) return 0;
  const auto item_bytes = static_cast<std::int64_t>(item_size(problem.dtype));
  const std::int64_t slabs =
      problem.sums != nullptr
          ? 0
          : split(problem.layout, problem.pixels, problem.channels, item_bytes).count;
  // Scales and means, then the sums of each slab.
  return static_cast<std::size_t>(problem.images * problem.channels * (2 + slabs)) * sizeof(float);
}

}  // namespace restorert::channel_attention

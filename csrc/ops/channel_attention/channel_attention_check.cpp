#include "core/check.h"
#include "ops/channel_attention/channel_attention.h"

namespace restorert::channel_attention {
namespace {

std::string subject(const char* name) {
  return std::string(kName) + ": argument '" + name + "' ";
}

// A contiguous [rows, columns] matrix in fp32 or, for a `parameter`, the dtype of r; `axes` names
// the sizes.
Status check_matrix(const Argument& argument, std::int64_t rows, std::int64_t columns,
                    const char* axes, bool parameter, const Argument& r) {
  const TensorView& view = argument.view;
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, argument, 2, axes));
  if (view.shape[0] != rows || view.shape[1] != columns) {
    return Status::invalid(subject(argument.name) + "has shape (" + std::to_string(view.shape[0]) +
                           ", " + std::to_string(view.shape[1]) + "); expected (" +
                           std::to_string(rows) + ", " + std::to_string(columns) + "), " + axes);
  }
  if (view.dtype != DType::kFloat32 && (!parameter || view.dtype != r.view.dtype)) {
    std::string expected = "float32";
    if (parameter && r.view.dtype != DType::kFloat32) {
      expected += " or " + r.view.dtype_name + ", the dtype of 'r'";
    }
    return {StatusCode::kUnsupportedDType,
            subject(argument.name) + "has dtype " + view.dtype_name + "; expected " + expected};
  }
  const bool dense =
      (rows <= 1 || view.strides[0] == columns) && (columns <= 1 || view.strides[1] == 1);
  if (element_count(view) > 0 && !dense) {
    return Status::invalid(subject(argument.name) + "has strides (" +
                           std::to_string(view.strides[0]) + ", " +
                           std::to_string(view.strides[1]) + "); expected a contiguous matrix");
  }
  return check_same_device(kName, argument, r);
}

}  // namespace

Status check_input(const TensorView& r) {
  return check_tensor(kName, {"r", r}, 4, "(N, C, H, W)");
}

Problem describe(const TensorView& r) {
  Problem problem;
  problem.dtype = r.dtype;
  problem.layout = has_layout(r, Layout::kNCHW) ? Layout::kNCHW : Layout::kNHWC;
  problem.device_index = r.device_index;
  // The product of the other sizes may overflow where one is 0; an empty problem needs none of
  // them.
  if (element_count(r) == 0) return problem;
  problem.images = r.shape[0];
  problem.channels = r.shape[1];
  problem.pixels = r.shape[2] * r.shape[3];
  return problem;
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
  if (hidden < 1) return Status::invalid(subject("w_down") + "has no rows; expected at least 1");
  RESTORERT_RETURN_IF_ERROR(check_matrix(w_down, hidden, channels, "(R, C)", true, r));
  RESTORERT_RETURN_IF_ERROR(check_matrix(w_up, channels, hidden, "(C, R)", true, r));
  if ((arguments.b_down == nullptr) != (arguments.b_up == nullptr)) {
    return Status::invalid(subject(arguments.b_down == nullptr ? "b_down" : "b_up") +
                           "is missing; expected both biases or neither");
  }
  if (arguments.b_down != nullptr) {
    RESTORERT_RETURN_IF_ERROR(check_parameter(kName, {"b_down", *arguments.b_down}, hidden, r));
    RESTORERT_RETURN_IF_ERROR(check_parameter(kName, {"b_up", *arguments.b_up}, channels, r));
  }
  if (arguments.sums != nullptr) {
    RESTORERT_RETURN_IF_ERROR(check_matrix({"sums", *arguments.sums}, arguments.r.shape[0],
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

  *problem = describe(arguments.r);
  problem->layout = layout;
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
  if (problem.images == 0 || problem.channels == 0 || problem.pixels == 0) return 0;
  const auto item_bytes = static_cast<std::int64_t>(item_size(problem.dtype));
  const std::int64_t slabs =
      problem.sums != nullptr
          ? 0
          : split(problem.layout, problem.pixels, problem.channels, item_bytes).count;
  // Scales and means, then the sums of each slab.
  return static_cast<std::size_t>(problem.images * problem.channels * (2 + slabs)) * sizeof(float);
}

}  // namespace restorert::channel_attention

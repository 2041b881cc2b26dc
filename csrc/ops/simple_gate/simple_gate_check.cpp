#include "core/check.h"
#include "ops/simple_gate/simple_gate.h"

namespace restorert::simple_gate {

Status check_input(const char* op, const TensorView& x) {
  RESTORERT_RETURN_IF_ERROR(check_tensor(op, {"x", x}, 4, "(N, 2 * C, H, W)"));
  if (x.shape[1] % 2 != 0) {
    return Status::invalid(std::string(op) + ": argument 'x' has " + std::to_string(x.shape[1]) +
                           " channels; expected an even number, two halves to be multiplied");
  }
  return {};
}

Status check_pair(const char* op, const TensorView& x, const TensorView& out, Layout* layout) {
  const Argument input{"x", x};
  const Argument output{"out", out};
  RESTORERT_RETURN_IF_ERROR(check_input(op, x));
  RESTORERT_RETURN_IF_ERROR(check_tensor(op, output, 4, "(N, C, H, W)"));
  RESTORERT_RETURN_IF_ERROR(check_shape(op, output,
                                        {x.shape[0], x.shape[1] / 2, x.shape[2], x.shape[3]},
                                        "half of the channels of 'x'"));
  RESTORERT_RETURN_IF_ERROR(check_same_device(op, output, input));
  if (out.dtype != x.dtype) {
    return {StatusCode::kUnsupportedDType, std::string(op) + ": argument 'out' has dtype " +
                                               out.dtype_name + "; expected " + x.dtype_name +
                                               ", the dtype of 'x'"};
  }
  RESTORERT_RETURN_IF_ERROR(check_one_layout(op, {input, output}, layout));
  return check_disjoint(op, output, input);
}

Status check(const Arguments& arguments, Problem* problem) {
  const TensorView& x = arguments.x;
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(check_pair(kName, x, arguments.out, &layout));

  *problem = Problem{};
  if (element_count(x) > 0) {
    // Only now: the product of the other sizes may overflow where one is 0.
    const std::int64_t pixels = x.shape[2] * x.shape[3];
    const bool planes = layout == Layout::kNCHW;
    problem->rows = planes ? x.shape[0] : x.shape[0] * pixels;
    problem->columns = planes ? x.shape[1] / 2 * pixels : x.shape[1] / 2;
  }
  problem->dtype = x.dtype;
  problem->x = x.data;
  problem->out = arguments.out.data;
  problem->device_index = x.device_index;
  return {};
}

}  // namespace restorert::simple_gate

#include <limits>

#include "core/check.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"

namespace restorert::conv_lstm_gates {

Status check(const Arguments& arguments, Problem* problem) {
  const Argument gates{"gates", arguments.gates};
  const Argument cell{"cell", arguments.cell};
  const Argument hidden{"hidden", arguments.hidden};
  const Argument next_cell{"next_cell", arguments.next_cell};
  RESTORERT_RETURN_IF_ERROR(check_tensor(kName, gates, 4, "(N, 4 * C, H, W)"));
  const TensorView& x = arguments.gates;
  if (x.shape[1] % 4 != 0) {
    return Status::invalid(std::string(kName) + ": argument 'gates' has " +
                           std::to_string(x.shape[1]) +
                           " channels; expected a multiple of 4, for the gates i, j, f and o");
  }
  for (const Argument& argument : {cell, hidden, next_cell}) {
    RESTORERT_RETURN_IF_ERROR(check_tensor(kName, argument, 4, "(N, C, H, W)"));
    RESTORERT_RETURN_IF_ERROR(check_shape(kName, argument,
                                          {x.shape[0], x.shape[1] / 4, x.shape[2], x.shape[3]},
                                          "a quarter of the channels of 'gates'"));
    RESTORERT_RETURN_IF_ERROR(check_same_device(kName, argument, gates));
  }
  RESTORERT_RETURN_IF_ERROR(check_dtype(kName, cell, gates, true));
  RESTORERT_RETURN_IF_ERROR(check_dtype(kName, hidden, gates, false));
  RESTORERT_RETURN_IF_ERROR(check_dtype(kName, next_cell, cell, false));
  Layout layout = Layout::kNCHW;
  RESTORERT_RETURN_IF_ERROR(check_one_layout(kName, {gates, cell, hidden, next_cell}, &layout));
  RESTORERT_RETURN_IF_ERROR(check_in_place_or_disjoint(kName, next_cell, cell));
  RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, next_cell, gates));
  for (const Argument& argument : {gates, cell, next_cell}) {
    RESTORERT_RETURN_IF_ERROR(check_disjoint(kName, hidden, argument));
  }
  RESTORERT_RETURN_IF_ERROR(check_number(kName, "forget_bias", arguments.forget_bias,
                                         -std::numeric_limits<double>::infinity()));

  *problem = {picture_of(arguments.cell, layout)};
  problem->dtype = x.dtype;
  problem->cell_dtype = arguments.cell.dtype;
  problem->gates = x.data;
  problem->cell = arguments.cell.data;
  problem->hidden = arguments.hidden.data;
  problem->next_cell = arguments.next_cell.data;
  problem->forget_bias = static_cast<float>(arguments.forget_bias);
  return {};
}

}  // namespace restorert::conv_lstm_gates

#include "binding_helpers.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"

namespace py = pybind11;

namespace restorert::conv_lstm_gates {
namespace {

void run(const TensorView& gates, const TensorView& cell, const TensorView& hidden,
         const TensorView& next_cell, double forget_bias, const TensorView* workspace,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({gates, cell, hidden, next_cell, forget_bias}, &problem));
  run_problem(kName, problem, {{"gates", gates}}, workspace, stream);
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      kName, &run, py::arg("gates"), py::arg("cell"), py::arg("hidden"), py::arg("next_cell"),
      py::arg("forget_bias") = kDefaultForgetBias, py::arg("workspace") = nullptr,
      py::arg("stream") = 0,
      "With i, j, f, o the quarters of gates, writes cell * sigmoid(f + forget_bias) + sigmoid(i) "
      "* tanh(j) to next_cell and tanh(next_cell) * sigmoid(o) to hidden.\n\n"
      "gates: [N, 4C, H, W], contiguous or channels_last, float32, float16 or bfloat16. cell: "
      "[N, C, H, W], float32 or the dtype of gates. next_cell: like cell, and may be cell. hidden: "
      "[N, C, H, W] in the dtype of gates. workspace: none is needed. stream: CUDA only, the "
      "cudaStream_t that orders the work, which is enqueued and not waited for.");
  bind_workspace_size(module, kName, "gates", &no_workspace);
}

}  // namespace restorert::conv_lstm_gates

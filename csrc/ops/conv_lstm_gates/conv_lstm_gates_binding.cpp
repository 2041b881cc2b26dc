#include <pybind11/pybind11.h>

#include <cstdint>

#include "binding_helpers.h"
#include "core/not_compiled.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"

namespace py = pybind11;

namespace restorert::conv_lstm_gates {
namespace {

void run(const TensorView& gates, const TensorView& cell, const TensorView& hidden,
         const TensorView& next_cell, double forget_bias, const TensorView* /*workspace*/,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({gates, cell, hidden, next_cell, forget_bias}, &problem));
  Status status;
  {
    const py::gil_scoped_release release;
    if (gates.device == DeviceKind::kCpu) {
      run_cpu(problem);
    } else {
      status = run_cuda(problem, reinterpret_cast<void*>(stream));  // NOLINT: a cudaStream_t
    }
  }
  raise_if_error(status);
}

std::size_t workspace_size(const TensorView& gates) {
  if (gates.device != DeviceKind::kCpu && !has_cuda()) raise_if_error(cuda_not_compiled(kName));
  return 0;
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "conv_lstm_gates", &run, py::arg("gates"), py::arg("cell"), py::arg("hidden"),
      py::arg("next_cell"), py::arg("forget_bias") = kDefaultForgetBias,
      py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "With i, j, f, o the quarters of gates, writes cell * sigmoid(f + forget_bias) + sigmoid(i) "
      "* "
      "tanh(j) to next_cell and tanh(next_cell) * sigmoid(o) to hidden.\n\n"
      "gates: [N, 4C, H, W], contiguous or channels_last, float32, float16 or bfloat16. cell: "
      "[N, C, H, W], float32 or the dtype of gates. next_cell: like cell, and may be cell. hidden: "
      "[N, C, H, W] in the dtype of gates. workspace: none is needed. stream: CUDA only, the "
      "cudaStream_t that orders the work, which is enqueued and not waited for.");
  module.def("conv_lstm_gates_workspace_size", &workspace_size, py::arg("gates"),
             "Bytes of workspace that conv_lstm_gates needs: 0.");
}

}  // namespace restorert::conv_lstm_gates

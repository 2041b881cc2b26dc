#include <pybind11/pybind11.h>

#include <cstdint>

#include "binding_helpers.h"
#include "core/check.h"
#include "core/not_compiled.h"
#include "ops/channel_attention/channel_attention.h"

namespace py = pybind11;

namespace restorert::channel_attention {
namespace {

void run(const TensorView& r, const TensorView* x, const TensorView& w_down, const TensorView& w_up,
         const TensorView* b_down, const TensorView* b_up, const TensorView* sums,
         const TensorView& out, const TensorView* workspace, std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({r, x, w_down, w_up, b_down, b_up, sums, out}, &problem));
  if (workspace != nullptr) {
    const Argument memory{"workspace", *workspace};
    raise_if_error(check_workspace(kName, memory, {"r", r}));
    raise_if_error(check_disjoint(kName, {"out", out}, memory));
    raise_if_error(check_disjoint(kName, memory, {"r", r}));
    if (x != nullptr) raise_if_error(check_disjoint(kName, memory, {"x", *x}));
  }
  Status status;
  {
    const py::gil_scoped_release release;
    if (r.device == DeviceKind::kCpu) {
      run_cpu(problem);
    } else {
      status = run_cuda(problem, workspace != nullptr ? workspace->data : nullptr,
                        workspace != nullptr ? static_cast<std::size_t>(workspace->shape[0]) : 0,
                        reinterpret_cast<void*>(stream));  // NOLINT: a cudaStream_t by value
    }
  }
  raise_if_error(status);
}

std::size_t workspace_size(const TensorView& r) {
  raise_if_error(check_input(r));
  if (r.device == DeviceKind::kCpu) return 0;
  if (!has_cuda()) raise_if_error(cuda_not_compiled(kName));
  return cuda_workspace_size(describe(r));
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "channel_attention", &run, py::arg("r"), py::arg("x").none(true), py::arg("w_down"),
      py::arg("w_up"), py::arg("b_down").none(true), py::arg("b_up").none(true),
      py::arg("sums").none(true), py::arg("out"), py::arg("workspace") = nullptr,
      py::arg("stream") = 0,
      "Writes r * s + x to out, s = sigmoid(w_up relu(w_down mean_hw(r) + b_down) + b_up).\n\n"
      "r, x, out: [N, C, H, W], contiguous or channels_last, float32, float16 or bfloat16; x may "
      "be None (r * s alone); out may be r or x. w_down: [R, C], w_up: [C, R]; b_down: [R], b_up: "
      "[C], or None for both: float32 or the dtype of r. sums: None, or float32 [N, C], r summed "
      "over H x W. workspace: CUDA only, uint8, 16-byte aligned, at least "
      "channel_attention_workspace_size(r) bytes. stream: CUDA only, the cudaStream_t that orders "
      "the work, which is enqueued and not waited for.");
  module.def("channel_attention_workspace_size", &workspace_size, py::arg("r"),
             "Bytes of workspace that channel_attention needs for r: 0 on the CPU.");
}

}  // namespace restorert::channel_attention

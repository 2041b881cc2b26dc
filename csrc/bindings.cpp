// The Python module restorert._native: tensors by address, one function an op. It knows nothing of
// torch or numpy; the Python layer passes pointers, and the stream that orders the work.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "binding_helpers.h"
#include "build_info.h"
#include "core/parallel.h"
#include "core/tensor_view.h"
#include "ops.h"

namespace py = pybind11;

#define RESTORERT_DECLARE_BIND(op)      \
  namespace restorert::op {             \
  void bind(pybind11::module_& module); \
  }
RESTORERT_FOR_EACH_OP(RESTORERT_DECLARE_BIND)

namespace restorert {
namespace {

// Lives as long as the interpreter; NotCompiledError in the module's namespace.
PyObject* g_not_compiled_error = nullptr;

TensorView make_view(std::uintptr_t data, const std::vector<std::int64_t>& shape,
                     const std::vector<std::int64_t>& strides, const std::string& dtype,
                     const std::string& device, int device_index) {
  if (shape.size() > static_cast<std::size_t>(TensorView::kMaxRank)) {
    throw py::value_error("TensorView: argument 'shape' has " + std::to_string(shape.size()) +
                          " dimensions; expected at most " + std::to_string(TensorView::kMaxRank));
  }
  if (strides.size() != shape.size()) {
    throw py::value_error("TensorView: argument 'strides' has length " +
                          std::to_string(strides.size()) + "; expected " +
                          std::to_string(shape.size()) + ", the length of 'shape'");
  }
  TensorView view;
  view.data = reinterpret_cast<void*>(data);  // NOLINT: an address is what Python has
  view.rank = static_cast<int>(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    view.shape[i] = shape[i];
    view.strides[i] = strides[i];
  }
  view.dtype = dtype_from_name(dtype);
  view.dtype_name = dtype;
  view.device = device_from_name(device);
  view.device_name = device;
  view.device_index = view.device == DeviceKind::kCpu ? -1 : device_index;
  return view;
}

py::object text_or_none(const std::string& text) {
  return text.empty() ? py::object(py::none()) : py::object(py::str(text));
}

py::dict build_info() {
  const std::string cuda_version = RESTORERT_CUDA_VERSION;
  py::list ops;
#define RESTORERT_APPEND_NAME(op) ops.append(#op);
  RESTORERT_FOR_EACH_OP(RESTORERT_APPEND_NAME)
#undef RESTORERT_APPEND_NAME
  py::dict info;
  info["version"] = RESTORERT_VERSION;
  info["compiler"] = RESTORERT_COMPILER;
  info["cuda"] = !cuda_version.empty();
  info["cuda_version"] = text_or_none(cuda_version);
  info["cuda_architectures"] = text_or_none(RESTORERT_CUDA_ARCHITECTURES);
#if defined(_OPENMP)
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  info["tensorrt_headers"] = text_or_none(RESTORERT_TENSORRT_HEADERS);
  info["ops"] = ops;
  return info;
}

}  // namespace

void raise_if_error(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return;
    case StatusCode::kInvalidArgument:
      throw py::value_error(status.message());
    case StatusCode::kUnsupportedDType:
      throw py::type_error(status.message());
    case StatusCode::kNotCompiled:
      PyErr_SetString(g_not_compiled_error, status.message().c_str());
      throw py::error_already_set();
    case StatusCode::kCudaError:
      break;
  }
  PyErr_SetString(PyExc_RuntimeError, status.message().c_str());
  throw py::error_already_set();
}

}  // namespace restorert

PYBIND11_MODULE(_native, module) {
  using restorert::TensorView;

  module.doc() = "Native image-restoration ops: CPU and, where compiled in, CUDA.";

  const py::exception<std::runtime_error> not_compiled(module, "NotCompiledError",
                                                       PyExc_RuntimeError);
  not_compiled.attr("__doc__") = "The kernels asked for were left out of this build.";
  restorert::g_not_compiled_error = py::object(not_compiled).release().ptr();

  // Local: the emulated build of this module lives in the same process in the tests.
  py::class_<TensorView>(module, "TensorView", py::module_local(),
                         "A tensor by address; owns nothing. Keep what owns the memory alive.")
      .def(py::init(&restorert::make_view), py::arg("data_ptr"), py::arg("shape"),
           py::arg("strides"), py::arg("dtype"), py::arg("device") = "cpu",
           py::arg("device_index") = -1,
           "data_ptr: address; shape: sizes, at most 5; strides: in elements; dtype: 'float32', "
           "'float16', 'bfloat16' or 'uint8' (ops refuse others by name); device: 'cpu' or 'cuda'; "
           "device_index: CUDA device, -1 for the current one, ignored on the CPU.");

  module.def("build_info", &restorert::build_info,
             "What this build is made of: version, compiler, cuda, cuda_version, "
             "cuda_architectures, openmp, tensorrt_headers, ops.");
  module.def("get_num_threads", &restorert::max_threads,
             "Threads that CPU ops use: OpenMP's, which torch.set_num_threads sets where torch was "
             "imported first.");

#define RESTORERT_CALL_BIND(op) restorert::op::bind(module);
  RESTORERT_FOR_EACH_OP(RESTORERT_CALL_BIND)
#undef RESTORERT_CALL_BIND
}

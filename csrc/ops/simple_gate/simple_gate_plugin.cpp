// The simple gate as a TensorRT plugin. Input x [N, 2C, H, W]; output [N, C, H, W] in its type. No
// attributes.
#include "ops/simple_gate/simple_gate.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::simple_gate {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

struct Op {
  static constexpr const char* kName = simple_gate::kName;
  static constexpr std::int32_t kInputs = 1;
  static constexpr std::int32_t kOutputs = 1;

  struct Attributes {};
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 0> kAttributes{};

  // All linear, or all dense NHWC.
  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    if (dtype_of(desc.type) == DType::kOther || desc.type != x.type || desc.format != x.format) {
      return false;
    }
    return desc.format == TensorFormat::kLINEAR || tensorrt::is_nhwc(desc);
  }

  static void output_types(const DataType* inputs, DataType* outputs) { outputs[0] = inputs[0]; }

  static void output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                            nvinfer1::IExprBuilder& builder) {
    outputs[0] = inputs[0];
    outputs[0].d[1] = builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *inputs[0].d[1],
                                        *builder.constant(2));
  }

  static Status check_shapes(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs) {
    const auto fail = [](const char* name, const char* expected) {
      return Status::invalid(std::string(simple_gate::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    const nvinfer1::Dims& x = inputs[0].dims;
    if (!tensorrt::has_rank(x, 4) || x.d[1] % 2 != 0) return fail("x", "[N, 2C, H, W]");
    if (!tensorrt::has_sizes(outputs[0].dims, {x.d[0], x.d[1] / 2, x.d[2], x.d[3]})) {
      return fail("out", "half of the channels of 'x'");
    }
    const bool linear = inputs[0].format == TensorFormat::kLINEAR;
    if (!linear && (!tensorrt::is_nhwc(inputs[0]) || !tensorrt::is_nhwc(outputs[0]))) {
      return fail("out", "C to be a multiple of 8 in format kHWC8");
    }
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* /*inputs*/) { return 0; }

  static Status enqueue(const Attributes& /*attributes*/, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* /*workspace*/, cudaStream_t stream) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs));
    const nvinfer1::Dims& out = output_descs[0].dims;
    const bool linear = input_descs[0].format == TensorFormat::kLINEAR;
    Problem problem;
    problem.rows = linear ? out.d[0] : out.d[0] * out.d[2] * out.d[3];
    problem.columns = linear ? out.d[1] * out.d[2] * out.d[3] : out.d[1];
    problem.dtype = dtype_of(input_descs[0].type);
    problem.x = inputs[0];
    problem.out = outputs[0];
    return run_cuda(problem, stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::simple_gate

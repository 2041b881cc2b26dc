// The simple gate with its mean as a TensorRT plugin. Input x [N, 2C, H, W]; outputs [N, C, H, W]
// in its type and the mean [N, C] in fp32. No attributes.
#include "ops/simple_gate_mean/simple_gate_mean.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::simple_gate_mean {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

// `x` and not the dims of `desc`: a profile asks about its largest shape.
Problem describe(const PluginTensorDesc& desc, const nvinfer1::Dims& x) {
  Problem problem;
  problem.images = x.d[0];
  problem.channels = x.d[1] / 2;
  problem.pixels = x.d[2] * x.d[3];
  problem.dtype = dtype_of(desc.type);
  problem.layout = desc.format == TensorFormat::kLINEAR ? Layout::kNCHW : Layout::kNHWC;
  return problem;
}

struct Op {
  static constexpr const char* kName = simple_gate_mean::kName;
  static constexpr std::int32_t kInputs = 1;
  static constexpr std::int32_t kOutputs = 2;

  struct Attributes {};
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 0> kAttributes{};

  // x and out linear, or both dense NHWC; the mean linear.
  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    if (position == 2) {
      return desc.format == TensorFormat::kLINEAR && desc.type == DataType::kFLOAT;
    }
    if (dtype_of(desc.type) == DType::kOther || desc.type != x.type || desc.format != x.format) {
      return false;
    }
    return desc.format == TensorFormat::kLINEAR || tensorrt::is_nhwc(desc);
  }

  static void output_types(const DataType* inputs, DataType* outputs) {
    outputs[0] = inputs[0];
    outputs[1] = DataType::kFLOAT;
  }

  static void output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                            nvinfer1::IExprBuilder& builder) {
    outputs[0] = inputs[0];
    outputs[0].d[1] = builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *inputs[0].d[1],
                                        *builder.constant(2));
    outputs[1].nbDims = 2;
    outputs[1].d[0] = inputs[0].d[0];
    outputs[1].d[1] = outputs[0].d[1];
  }

  static Status check_shapes(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs) {
    const auto fail = [](const char* name, const char* expected) {
      return Status::invalid(std::string(simple_gate_mean::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    const nvinfer1::Dims& x = inputs[0].dims;
    if (!tensorrt::has_rank(x, 4) || x.d[1] % 2 != 0) return fail("x", "[N, 2C, H, W]");
    if (!tensorrt::has_sizes(outputs[0].dims, {x.d[0], x.d[1] / 2, x.d[2], x.d[3]})) {
      return fail("out", "half of the channels of 'x'");
    }
    if (!tensorrt::has_sizes(outputs[1].dims, {x.d[0], x.d[1] / 2})) return fail("mean", "[N, C]");
    const bool linear = inputs[0].format == TensorFormat::kLINEAR;
    if (!linear && (!tensorrt::is_nhwc(inputs[0]) || !tensorrt::is_nhwc(outputs[0]))) {
      return fail("out", "C to be a multiple of 8 in format kHWC8");
    }
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* inputs) {
    if (!tensorrt::has_rank(inputs[0].max, 4)) return 0;
    return cuda_workspace_size(describe(inputs[0].desc, inputs[0].max));
  }

  static Status enqueue(const Attributes& /*attributes*/, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* workspace, cudaStream_t stream) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs));
    Problem problem = describe(input_descs[0], input_descs[0].dims);
    problem.x = inputs[0];
    problem.out = outputs[0];
    problem.mean = static_cast<float*>(outputs[1]);
    // TensorRT allocated what workspace_size asked for at the profile's largest shape.
    return run_cuda(problem, workspace, cuda_workspace_size(problem), stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::simple_gate_mean

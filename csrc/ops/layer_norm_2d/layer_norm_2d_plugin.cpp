// Layer norm over channels as a TensorRT plugin. Inputs x [N, C, H, W], weight [C], bias [C];
// output like x. Attribute eps.
#include "ops/layer_norm_2d/layer_norm_2d.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::layer_norm_2d {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

struct Op {
  static constexpr const char* kName = layer_norm_2d::kName;
  static constexpr std::int32_t kInputs = 3;
  static constexpr std::int32_t kOutputs = 1;

  struct Attributes {
    float eps = kDefaultEps;
  };
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 1> kAttributes{
      {{"eps", &Attributes::eps, 0.0F}}};

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    switch (position) {
      case 0:
        return dtype_of(x.type) != DType::kOther &&
               (x.format == TensorFormat::kLINEAR || tensorrt::is_nhwc(x));
      case 1:
      case 2:
        return desc.format == TensorFormat::kLINEAR &&
               (desc.type == DataType::kFLOAT || desc.type == x.type);
      default:
        return desc.format == x.format && desc.type == x.type;
    }
  }

  static void output_types(const DataType* inputs, DataType* outputs) { outputs[0] = inputs[0]; }

  static void output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs) {
    outputs[0] = inputs[0];
  }

  static Status check_shapes(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs) {
    const auto fail = [](const char* name, const char* expected) {
      return Status::invalid(std::string(layer_norm_2d::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    const nvinfer1::Dims& x = inputs[0].dims;
    if (!tensorrt::has_rank(x, 4)) return fail("x", "[N, C, H, W]");
    if (inputs[0].format != TensorFormat::kLINEAR && !tensorrt::is_nhwc(inputs[0])) {
      return fail("x", "C to be a multiple of 8 in format kHWC8");
    }
    if (!tensorrt::has_sizes(inputs[1].dims, {x.d[1]})) return fail("weight", "[C]");
    if (!tensorrt::has_sizes(inputs[2].dims, {x.d[1]})) return fail("bias", "[C]");
    if (!tensorrt::has_sizes(outputs[0].dims, {x.d[0], x.d[1], x.d[2], x.d[3]})) {
      return fail("out", "the shape of 'x'");
    }
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* /*inputs*/) { return 0; }

  static Status enqueue(const Attributes& attributes, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* /*workspace*/, cudaStream_t stream) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs));
    const PluginTensorDesc& x = input_descs[0];
    Problem problem;
    problem.images = x.dims.d[0];
    problem.channels = x.dims.d[1];
    problem.pixels = x.dims.d[2] * x.dims.d[3];
    problem.dtype = dtype_of(x.type);
    problem.layout = x.format == TensorFormat::kLINEAR ? Layout::kNCHW : Layout::kNHWC;
    problem.x = inputs[0];
    problem.weight = inputs[1];
    problem.bias = inputs[2];
    problem.weight_dtype = dtype_of(input_descs[1].type);
    problem.bias_dtype = dtype_of(input_descs[2].type);
    problem.out = outputs[0];
    problem.eps = attributes.eps;
    return run_cuda(problem, stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::layer_norm_2d

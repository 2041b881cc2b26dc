// Half instance norm as a TensorRT plugin. Inputs x [N, C, H, W], weight [C/2], bias [C/2]; output
// like x. Attributes eps and negative_slope.
#include <limits>

#include "ops/half_instance_norm/half_instance_norm.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::half_instance_norm {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

// `dims` and not the dims of `desc`: a profile asks about its largest shape.
Problem describe(const PluginTensorDesc& desc, const nvinfer1::Dims& dims) {
  Problem problem;
  problem.images = dims.d[0];
  problem.channels = dims.d[1];
  problem.pixels = dims.d[2] * dims.d[3];
  problem.dtype = dtype_of(desc.type);
  problem.layout = desc.format == TensorFormat::kHWC8 ? Layout::kNHWC : Layout::kNCHW;
  return problem;
}

struct Op {
  static constexpr const char* kName = half_instance_norm::kName;
  static constexpr std::int32_t kInputs = 3;
  static constexpr std::int32_t kOutputs = 1;

  struct Attributes {
    float eps = kDefaultEps;
    float negative_slope = kDefaultNegativeSlope;
  };
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 2> kAttributes{
      {{"eps", &Attributes::eps, 0.0F},
       {"negative_slope", &Attributes::negative_slope, -std::numeric_limits<float>::infinity()}}};

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    switch (position) {
      case 0:
        if (x.format == TensorFormat::kLINEAR) return dtype_of(x.type) != DType::kOther;
        // kHWC8 pads the channels of a pixel to a multiple of 8; where C is one it is dense NHWC,
        // which is what the kernels take. An unknown C (-1) is not a multiple.
        return x.format == TensorFormat::kHWC8 &&
               (x.type == DataType::kHALF || x.type == DataType::kBF16) && x.dims.nbDims == 4 &&
               x.dims.d[1] > 0 && x.dims.d[1] % 8 == 0;
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
    const nvinfer1::Dims& x = inputs[0].dims;
    const auto fail = [](const char* name, const char* expected) {
      return Status::invalid(std::string(half_instance_norm::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    if (x.nbDims != 4 || x.d[0] < 0 || x.d[1] < 0 || x.d[2] < 0 || x.d[3] < 0 || x.d[1] % 2 != 0) {
      return fail("x", "[N, C, H, W] with an even C");
    }
    if (inputs[0].format == TensorFormat::kHWC8 && x.d[1] % 8 != 0) {
      return fail("x", "C to be a multiple of 8 in format kHWC8");
    }
    for (int i = 1; i <= 2; ++i) {
      if (inputs[i].dims.nbDims != 1 || inputs[i].dims.d[0] != x.d[1] / 2) {
        return fail(i == 1 ? "weight" : "bias", "[C/2]");
      }
    }
    if (outputs[0].dims.nbDims != 4) return fail("out", "the shape of 'x'");
    for (int i = 0; i < 4; ++i) {
      if (outputs[0].dims.d[i] != x.d[i]) return fail("out", "the shape of 'x'");
    }
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* inputs) {
    const nvinfer1::Dims& largest = inputs[0].max;
    if (largest.nbDims != 4) return 0;
    for (int i = 0; i < 4; ++i) {
      if (largest.d[i] < 0) return 0;
    }
    return cuda_workspace_size(describe(inputs[0].desc, largest));
  }

  static Status enqueue(const Attributes& attributes, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* workspace, cudaStream_t stream) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs));
    Problem problem = describe(input_descs[0], input_descs[0].dims);
    problem.x = inputs[0];
    problem.weight = inputs[1];
    problem.bias = inputs[2];
    problem.weight_dtype = dtype_of(input_descs[1].type);
    problem.bias_dtype = dtype_of(input_descs[2].type);
    problem.out = outputs[0];
    problem.eps = attributes.eps;
    problem.negative_slope = attributes.negative_slope;
    // TensorRT allocated what workspace_size asked for at the profile's largest shape.
    return run_cuda(problem, workspace, cuda_workspace_size(problem), stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::half_instance_norm

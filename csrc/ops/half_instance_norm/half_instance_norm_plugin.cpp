// Half instance norm as a TensorRT plugin. Inputs x [N, C, H, W], weight [C/2], bias [C/2]; output
// like x. Attributes eps and negative_slope.
#include <limits>

#include "ops/half_instance_norm/half_instance_norm.h"
#include "tensorrt/plugin.h"

namespace restorert::half_instance_norm {
namespace {

using namespace tensorrt;

struct Op : OpDefaults<Problem, 3, 1> {
  static constexpr const char* kName = half_instance_norm::kName;

  struct Attributes {
    float eps = kDefaultEps;
    float negative_slope = kDefaultNegativeSlope;
  };
  static constexpr std::array<FloatAttribute<Attributes>, 2> kAttributes{
      {{"eps", &Attributes::eps, 0.0F},
       {"negative_slope", &Attributes::negative_slope, -std::numeric_limits<float>::infinity()}}};

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                       std::int32_t /*inputs*/) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    if (position == 0) return is_picture(x);
    return position < kInputs ? is_parameter(desc, x) : is_like(desc, x);
  }

  static Status check_shapes(const PluginTensorDesc* in, const PluginTensorDesc* out,
                             std::int32_t /*inputs*/) {
    RESTORERT_RETURN_IF_ERROR(check_picture(kName, "x", in[0]));
    const Dims& x = in[0].dims;
    if (x.d[1] % 2 != 0) return wrong_shape(kName, "x", "an even C");
    if (!has_sizes(in[1].dims, {x.d[1] / 2})) return wrong_shape(kName, "weight", "[C/2]");
    if (!has_sizes(in[2].dims, {x.d[1] / 2})) return wrong_shape(kName, "bias", "[C/2]");
    if (!has_sizes_of(out[0].dims, x, x.d[1])) return wrong_shape(kName, "out", "the shape of 'x'");
    return {};
  }

  static void fill(Problem& problem, const Attributes& attributes, const PluginTensorDesc* descs,
                   const void* const* inputs, void* const* outputs, std::int32_t /*input_count*/) {
    problem.x = inputs[0];
    problem.weight = inputs[1];
    problem.bias = inputs[2];
    problem.weight_dtype = dtype_of(descs[1].type);
    problem.bias_dtype = dtype_of(descs[2].type);
    problem.out = outputs[0];
    problem.eps = attributes.eps;
    problem.negative_slope = attributes.negative_slope;
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::half_instance_norm

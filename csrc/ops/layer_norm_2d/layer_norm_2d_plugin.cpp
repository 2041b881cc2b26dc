// Layer norm over channels as a TensorRT plugin. Inputs x [N, C, H, W], weight [C], bias [C];
// output like x. Attribute eps.
#include "ops/layer_norm_2d/layer_norm_2d.h"
#include "tensorrt/plugin.h"

namespace restorert::layer_norm_2d {
namespace {

using namespace tensorrt;

struct Op : OpDefaults<Problem, 3, 1> {
  static constexpr const char* kName = layer_norm_2d::kName;

  struct Attributes {
    float eps = kDefaultEps;
  };
  static constexpr std::array<FloatAttribute<Attributes>, 1> kAttributes{
      {{"eps", &Attributes::eps, 0.0F}}};

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
    if (!has_sizes(in[1].dims, {x.d[1]})) return wrong_shape(kName, "weight", "[C]");
    if (!has_sizes(in[2].dims, {x.d[1]})) return wrong_shape(kName, "bias", "[C]");
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
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::layer_norm_2d

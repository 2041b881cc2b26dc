// The boilerplate of a TensorRT V3 plugin, once: identity, attributes, serialisation, cloning,
// error reports and the launch. An op writes a class `Op` with what differs, on top of OpDefaults,
// which has what most of them do:
//
//   static constexpr const char* kName;              the plugin's name
//   static constexpr std::int32_t kFewestInputs;     fewer than the inputs where some may be left
//                         out; `inputs` says how many there are
//   struct Attributes { float ...; };                with their defaults
//   static constexpr std::array<FloatAttribute<Attributes>, n> kAttributes;
//   static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
//                        std::int32_t inputs);
//   static void output_types(const DataType* inputs, DataType* outputs);
//   static void output_shapes(const DimsExprs* inputs, DimsExprs* outputs, IExprBuilder& builder);
//   static Status check_shapes(const PluginTensorDesc* in, const PluginTensorDesc* out,
//                              std::int32_t inputs);
//   static Problem describe(const PluginTensorDesc& first_input, const Dims& dims);
//                         as much of the problem as the workspace depends on
//   static void fill(Problem& problem, const Attributes& attributes, const PluginTensorDesc* descs,
//                    const void* const* inputs, void* const* outputs, std::int32_t input_count);
//                         the rest of it
//
// Name, version and namespace. In an ONNX file an op is a local function `restorert::<name>`, and
// TensorRT's parser (10.7 and later) lets a plugin take the place of a function's body when
// ENABLE_PLUGIN_OVERRIDE is set. It then looks the node up in the registry by its op type, by its
// attribute plugin_version (default "1") and by its attribute plugin_namespace (default ""); the
// node's domain plays no part in that look-up. Without the body the fallback importer looks up the
// same three, and only newer parsers try the domain after that. So the namespace must be "" and the
// version "1": in a namespace "restorert" the plugin would never be found unless every node said
// plugin_namespace, which is no attribute of the function.
#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "core/status.h"
#include "tensorrt/formats.h"
#include "tensorrt/logging.h"

namespace restorert::tensorrt {

inline constexpr const char* kPluginVersion = "1";
inline constexpr const char* kPluginNamespace = "";

template <typename Attributes>
struct FloatAttribute {
  const char* name;
  float Attributes::* member;
  float minimum;  // -infinity where any finite number will do
};

template <typename Problem, std::int32_t inputs, std::int32_t outputs>
struct OpDefaults {
  static constexpr std::int32_t kInputs = inputs;
  static constexpr std::int32_t kFewestInputs = inputs;
  static constexpr std::int32_t kOutputs = outputs;

  struct Attributes {};
  static constexpr std::array<FloatAttribute<Attributes>, 0> kAttributes{};

  // All outputs are like the first input.
  static void output_types(const DataType* in, DataType* out) { std::fill_n(out, outputs, in[0]); }
  static void output_shapes(const DimsExprs* in, DimsExprs* out, IExprBuilder& /*builder*/) {
    std::fill_n(out, outputs, in[0]);
  }
  static Problem describe(const PluginTensorDesc& first_input, const Dims& dims) {
    return {picture_of(first_input, dims)};
  }
};

// Reads `fields` into `attributes`, whose defaults stay where a field is absent.
template <typename Op>
Status read_fields(const nvinfer1::PluginFieldCollection* fields,
                   typename Op::Attributes* attributes) {
  if (fields == nullptr || fields->nbFields == 0) return {};
  const std::string op = std::string(Op::kName) + ": ";
  if (fields->nbFields < 0 || fields->fields == nullptr) {
    return Status::invalid(op + "the field collection is malformed; expected nbFields fields");
  }
  std::array<bool, Op::kAttributes.size()> seen{};
  for (std::int32_t i = 0; i < fields->nbFields; ++i) {
    const nvinfer1::PluginField& field = fields->fields[i];
    const std::string name = field.name != nullptr ? field.name : "";
    std::size_t index = 0;
    while (index < seen.size() && name != Op::kAttributes[index].name) ++index;
    if (index == seen.size()) {
      std::string known;
      for (const auto& attribute : Op::kAttributes) {
        known += (known.empty() ? "" : ", ") + std::string(attribute.name);
      }
      return Status::invalid(op + "unknown field '" + name + "'; expected " +
                             (known.empty() ? "none" : "one of " + known));
    }
    if (seen[index]) return Status::invalid(op + "field '" + name + "' is given twice");
    seen[index] = true;
    if (field.type != nvinfer1::PluginFieldType::kFLOAT32 || field.length != 1 ||
        field.data == nullptr) {
      return Status::invalid(op + "field '" + name + "' is not one float32; expected one");
    }
    float value = 0.0F;
    std::memcpy(&value, field.data, sizeof(value));  // may be misaligned in a serialised engine
    if (!std::isfinite(value) || value < Op::kAttributes[index].minimum) {
      return Status::invalid(op + "field '" + name + "' is " + std::to_string(value) +
                             "; expected a finite number" +
                             (std::isfinite(Op::kAttributes[index].minimum)
                                  ? " >= " + std::to_string(Op::kAttributes[index].minimum)
                                  : std::string()));
    }
    attributes->*(Op::kAttributes[index].member) = value;
  }
  return {};
}

// 0 for success, else the message is logged and 1 returned, as TensorRT's methods want it.
inline std::int32_t report(const Status& status) noexcept {
  if (status.ok()) return 0;
  log_error(status.message());
  return 1;
}

template <typename Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  using Attributes = typename Op::Attributes;

  explicit Plugin(const Attributes& attributes) : attributes_(attributes) {
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      const auto& attribute = Op::kAttributes[i];
      fields_[i] = nvinfer1::PluginField(attribute.name, &(attributes_.*(attribute.member)),
                                         nvinfer1::PluginFieldType::kFLOAT32, 1);
    }
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
  }
  Plugin(const Plugin&) = delete;  // fields_ points into the object
  Plugin& operator=(const Plugin&) = delete;
  ~Plugin() override = default;

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override {
    auto* copy = new (std::nothrow) Plugin(attributes_);
    if (copy != nullptr) copy->inputs_ = inputs_;
    return copy;
  }

  // Core
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  // Build
  std::int32_t getNbOutputs() const noexcept override { return Op::kOutputs; }
  std::int32_t configurePlugin(const DynamicPluginTensorDesc* /*in*/, std::int32_t inputs,
                               const DynamicPluginTensorDesc* /*out*/,
                               std::int32_t outputs) noexcept override {
    inputs_ = inputs;
    return check_counts(inputs, outputs);
  }
  std::int32_t getOutputDataTypes(DataType* output_types, std::int32_t outputs,
                                  const DataType* input_types,
                                  std::int32_t inputs) const noexcept override {
    if (const std::int32_t error = check_counts(inputs, outputs); error != 0) return error;
    Op::output_types(input_types, output_types);
    return 0;
  }
  std::int32_t getOutputShapes(const DimsExprs* input_shapes, std::int32_t inputs,
                               const DimsExprs* /*shape_inputs*/,
                               std::int32_t /*shape_input_count*/, DimsExprs* output_shapes,
                               std::int32_t outputs, IExprBuilder& builder) noexcept override {
    if (const std::int32_t error = check_counts(inputs, outputs); error != 0) return error;
    Op::output_shapes(input_shapes, output_shapes, builder);
    return 0;
  }
  bool supportsFormatCombination(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                                 std::int32_t inputs, std::int32_t outputs) noexcept override {
    if (!takes(inputs, outputs) || position < 0 || position >= inputs + outputs) return false;
    return Op::supports(position, tensors, inputs);
  }
  std::size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, std::int32_t /*input_count*/,
                               const DynamicPluginTensorDesc* /*outputs*/,
                               std::int32_t /*output_count*/) const noexcept override {
    if (!has_rank(inputs[0].max, 4)) return 0;
    return cuda_workspace_size(Op::describe(inputs[0].desc, inputs[0].max));
  }
  // Attribute values change no timing, so layers of one shape share their entry in the cache.
  const char* getTimingCacheID() noexcept override { return Op::kName; }

  // Runtime
  std::int32_t onShapeChange(const PluginTensorDesc* in, std::int32_t inputs,
                             const PluginTensorDesc* out, std::int32_t outputs) noexcept override {
    if (const std::int32_t error = check_counts(inputs, outputs); error != 0) return error;
    inputs_ = inputs;
    return report(Op::check_shapes(in, out, inputs));
  }
  std::int32_t enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc* output_descs,
                       const void* const* inputs, void* const* outputs, void* workspace,
                       cudaStream_t stream) noexcept override {
    if (const std::int32_t error = check_counts(inputs_, Op::kOutputs); error != 0) return error;
    if (const Status status = Op::check_shapes(input_descs, output_descs, inputs_); !status.ok()) {
      return report(status);
    }
    auto problem = Op::describe(input_descs[0], input_descs[0].dims);
    Op::fill(problem, attributes_, input_descs, inputs, outputs, inputs_);
    // TensorRT allocated what getWorkspaceSize asked for at the profile's largest shape.
    return report(run_cuda(problem, workspace, cuda_workspace_size(problem), stream));
  }
  nvinfer1::IPluginV3* attachToContext(
      nvinfer1::IPluginResourceContext* /*context*/) noexcept override {
    return clone();
  }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return &collection_;
  }

 private:
  static constexpr bool kCounted = Op::kFewestInputs < Op::kInputs;

  static bool takes(std::int32_t inputs, std::int32_t outputs) noexcept {
    return inputs >= Op::kFewestInputs && inputs <= Op::kInputs && outputs == Op::kOutputs;
  }
  static std::int32_t check_counts(std::int32_t inputs, std::int32_t outputs) noexcept {
    if (takes(inputs, outputs)) return 0;
    const std::string fewest = kCounted ? std::to_string(Op::kFewestInputs) + " to " : "";
    return report(
        Status::invalid(std::string(Op::kName) + ": the layer has " + std::to_string(inputs) +
                        " inputs and " + std::to_string(outputs) + " outputs; expected " + fewest +
                        std::to_string(Op::kInputs) + " and " + std::to_string(Op::kOutputs)));
  }

  Attributes attributes_;
  // As TensorRT last told; enqueue is not told again.
  std::int32_t inputs_ = kCounted ? 0 : Op::kInputs;
  std::array<nvinfer1::PluginField, Op::kAttributes.size()> fields_{};
  nvinfer1::PluginFieldCollection collection_{};
};

template <typename Op>
class PluginCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  PluginCreator() {
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      fields_[i] = nvinfer1::PluginField(Op::kAttributes[i].name, nullptr,
                                         nvinfer1::PluginFieldType::kFLOAT32, 1);
    }
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
  }

  // Both phases take the same fields; nullptr, with a line in the log, when one is wrong.
  nvinfer1::IPluginV3* createPlugin(const char* /*name*/,
                                    const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase /*phase*/) noexcept override {
    try {
      typename Op::Attributes attributes;
      if (report(read_fields<Op>(fields, &attributes)) != 0) return nullptr;
      return new Plugin<Op>(attributes);
    } catch (const std::exception& error) {
      log_error(error.what());
      return nullptr;
    }
  }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

 private:
  std::array<nvinfer1::PluginField, Op::kAttributes.size()> fields_{};
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace restorert::tensorrt

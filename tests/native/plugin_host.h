// TensorRT's part towards librestorert_plugins.so, as far as tests play it: the logger, loading,
// finding a creator, creating, and what a layer's tensors look like.
#pragma once

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.h"

namespace restorert::test {

class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity == Severity::kERROR) last = message;
  }
  std::string last;
};

class LoggerFinder final : public nvinfer1::ILoggerFinder {
 public:
  nvinfer1::ILogger* findLogger() override { return &logger; }
  Logger logger;
};

class ExprBuilder final : public nvinfer1::IExprBuilder {};  // what a plugin need not call

inline LoggerFinder g_finder;

// The last error was one line, of this op, with `part` in it.
inline bool logged_one_line(const char* op, const char* part) {
  const std::string& text = g_finder.logger.last;
  return text.rfind(std::string(op) + ": ", 0) == 0 && text.find('\n') == std::string::npos &&
         text.find(part) != std::string::npos;
}

inline nvinfer1::IPluginCreatorV3One* load_creator(const char* name) {
  using GetCreators = nvinfer1::IPluginCreatorInterface* const* (*)(std::int32_t&);
  using SetLoggerFinder = void (*)(nvinfer1::ILoggerFinder*);
  void* library = dlopen(RESTORERT_PLUGIN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) std::printf("%s\n", dlerror());
  CHECK(library != nullptr);
  if (library == nullptr) return nullptr;
  const auto get = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
  const auto set = reinterpret_cast<SetLoggerFinder>(dlsym(library, "setLoggerFinder"));
  CHECK(get != nullptr && set != nullptr);
  if (get == nullptr || set == nullptr) return nullptr;
  set(&g_finder);
  std::int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* creators = get(count);
  CHECK(count >= 1);
  for (std::int32_t i = 0; i < count; ++i) {
    CHECK(std::strcmp(creators[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
    auto* creator = static_cast<nvinfer1::IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginName(), name) == 0) return creator;
  }
  return nullptr;
}

using PluginPointer = std::unique_ptr<nvinfer1::IPluginV3>;

inline PluginPointer create(nvinfer1::IPluginCreatorV3One* creator,
                            const std::vector<nvinfer1::PluginField>& fields,
                            nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD) {
  g_finder.logger.last.clear();
  nvinfer1::PluginFieldCollection collection;
  collection.nbFields = static_cast<std::int32_t>(fields.size());
  collection.fields = fields.data();
  return PluginPointer(creator->createPlugin("layer", &collection, phase));
}

template <typename Capability>
Capability* capability(nvinfer1::IPluginV3* plugin, nvinfer1::PluginCapabilityType type) {
  return static_cast<Capability*>(plugin->getCapabilityInterface(type));
}

inline nvinfer1::IPluginV3OneCore* core_of(nvinfer1::IPluginV3* plugin) {
  return capability<nvinfer1::IPluginV3OneCore>(plugin, nvinfer1::PluginCapabilityType::kCORE);
}
inline nvinfer1::IPluginV3OneBuild* build_of(nvinfer1::IPluginV3* plugin) {
  return capability<nvinfer1::IPluginV3OneBuild>(plugin, nvinfer1::PluginCapabilityType::kBUILD);
}
inline nvinfer1::IPluginV3OneRuntime* runtime_of(nvinfer1::IPluginV3* plugin) {
  return capability<nvinfer1::IPluginV3OneRuntime>(plugin,
                                                   nvinfer1::PluginCapabilityType::kRUNTIME);
}

inline nvinfer1::Dims dims_of(const std::vector<std::int64_t>& sizes) {
  nvinfer1::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) dims.d[i] = sizes[i];
  return dims;
}

inline nvinfer1::PluginTensorDesc desc_of(
    const std::vector<std::int64_t>& sizes, nvinfer1::DataType type,
    nvinfer1::TensorFormat format = nvinfer1::TensorFormat::kLINEAR) {
  nvinfer1::PluginTensorDesc desc{};
  desc.dims = dims_of(sizes);
  desc.type = type;
  desc.format = format;
  return desc;
}

// What a builder asks with: the same sizes as least, best and largest.
inline std::vector<nvinfer1::DynamicPluginTensorDesc> dynamic_of(
    const std::vector<nvinfer1::PluginTensorDesc>& descs) {
  std::vector<nvinfer1::DynamicPluginTensorDesc> tensors(descs.size());
  for (std::size_t i = 0; i < descs.size(); ++i) {
    tensors[i].desc = descs[i];
    tensors[i].min = tensors[i].opt = tensors[i].max = descs[i].dims;
  }
  return tensors;
}

// A creator whose only attribute is one float32: identity, defaults, round trip, clones and every
// wrong field. `good` is a value it takes; `bad`, if not NaN, a finite one that it refuses.
inline void test_one_attribute(nvinfer1::IPluginCreatorV3One* creator, const char* op,
                               const char* attribute, float standard, float good, float bad) {
  using nvinfer1::PluginField;
  using nvinfer1::PluginFieldType;
  using nvinfer1::TensorRTPhase;
  CHECK(std::strcmp(creator->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(creator->getPluginNamespace(), "") == 0);
  const nvinfer1::PluginFieldCollection* names = creator->getFieldNames();
  CHECK(names->nbFields == 1 && std::strcmp(names->fields[0].name, attribute) == 0);
  const auto value_of = [&](nvinfer1::IPluginV3* plugin) {
    const nvinfer1::PluginFieldCollection* fields = runtime_of(plugin)->getFieldsToSerialize();
    CHECK(fields->nbFields == 1 && std::strcmp(fields->fields[0].name, attribute) == 0);
    CHECK(fields->fields[0].type == PluginFieldType::kFLOAT32 && fields->fields[0].length == 1);
    float value = 0.0F;
    std::memcpy(&value, fields->fields[0].data, sizeof(value));
    return value;
  };
  const auto field = [](const char* name, const void* data, PluginFieldType type, int length) {
    return PluginField(name, data, type, length);
  };
  constexpr PluginFieldType kFloat = PluginFieldType::kFLOAT32;

  CHECK(value_of(create(creator, {}).get()) == standard);
  PluginPointer plugin = create(creator, {field(attribute, &good, kFloat, 1)});
  CHECK(plugin != nullptr && value_of(plugin.get()) == good);
  if (plugin == nullptr) return;
  CHECK(std::strcmp(core_of(plugin.get())->getPluginName(), op) == 0);
  // Clones outlive what they came from; what goes into an engine comes back at any alignment.
  PluginPointer clone(plugin->clone());
  PluginPointer attached(runtime_of(plugin.get())->attachToContext(nullptr));
  std::vector<char> bytes(1 + sizeof(float));
  std::memcpy(bytes.data() + 1, runtime_of(plugin.get())->getFieldsToSerialize()->fields[0].data,
              sizeof(float));
  PluginPointer again =
      create(creator, {field(attribute, bytes.data() + 1, kFloat, 1)}, TensorRTPhase::kRUNTIME);
  plugin.reset();
  for (const PluginPointer* other : {&clone, &attached, &again}) {
    CHECK(*other != nullptr && value_of(other->get()) == good);
  }

  const double wide = 1.0;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinite = std::numeric_limits<float>::infinity();
  std::vector<PluginField> wrong{field(attribute, &wide, PluginFieldType::kFLOAT64, 1),
                                 field(attribute, &good, kFloat, 2),
                                 field(attribute, &good, kFloat, 0),
                                 field(attribute, nullptr, kFloat, 1),
                                 field(attribute, &nan, kFloat, 1),
                                 field(attribute, &infinite, kFloat, 1)};
  if (bad == bad) wrong.push_back(field(attribute, &bad, kFloat, 1));
  for (const PluginField& each : wrong) {
    for (const TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
      CHECK(create(creator, {each}, phase) == nullptr && logged_one_line(op, attribute));
    }
  }
  CHECK(create(creator, {field("other", &good, kFloat, 1)}) == nullptr);
  CHECK(logged_one_line(op, "unknown field 'other'"));
}

}  // namespace restorert::test

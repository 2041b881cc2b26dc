// TensorRT's part towards librestorert_plugins.so, as far as tests play it: the logger, loading,
// finding a creator, creating, and what a layer's tensors look like.
#pragma once

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
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

// A builder's expressions: numbers.
class Expression final : public nvinfer1::IDimensionExpr, nvinfer1::apiv::VDimensionExpr {
 public:
  explicit Expression(std::int64_t number) : number_(number) { mImpl = this; }
  bool isConstant() const override { return true; }
  std::int64_t getConstantValue() const override { return number_; }
  bool isSizeTensor() const override { return false; }

 private:
  std::int64_t number_;
};

class NumberBuilder final : public nvinfer1::IExprBuilder, nvinfer1::apiv::VExprBuilder {
 public:
  NumberBuilder() { mImpl = this; }
  const nvinfer1::IDimensionExpr* constant(std::int64_t value) override {
    made_.push_back(std::make_unique<Expression>(value));
    return made_.back().get();
  }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation op,
                                            const nvinfer1::IDimensionExpr& first,
                                            const nvinfer1::IDimensionExpr& second) override {
    CHECK(op == nvinfer1::DimensionOperation::kFLOOR_DIV);
    return constant(number_of(&first) / number_of(&second));
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(std::int32_t, const nvinfer1::IDimensionExpr&,
                                                    const nvinfer1::IDimensionExpr&) override {
    return nullptr;
  }

  nvinfer1::DimsExprs expressions(const nvinfer1::Dims& dims) {
    nvinfer1::DimsExprs result{};
    result.nbDims = dims.nbDims;
    for (std::int32_t i = 0; i < dims.nbDims; ++i) result.d[i] = constant(dims.d[i]);
    return result;
  }
  static std::int64_t number_of(const nvinfer1::IDimensionExpr* expression) {
    return static_cast<const Expression*>(expression)->getConstantValue();
  }

 private:
  std::vector<std::unique_ptr<Expression>> made_;
};

inline LoggerFinder g_finder;

// The last error was one line, of this op, with `part` in it.
inline bool logged_one_line(const char* op, const char* part) {
  const std::string& text = g_finder.logger.last;
  return text.rfind(std::string(op) + ": ", 0) == 0 && text.find('\n') == std::string::npos &&
         text.find(part) != std::string::npos;
}

inline std::vector<nvinfer1::IPluginCreatorV3One*> load_creators() {
  using GetCreators = nvinfer1::IPluginCreatorInterface* const* (*)(std::int32_t&);
  using SetLoggerFinder = void (*)(nvinfer1::ILoggerFinder*);
  void* library = dlopen(RESTORERT_PLUGIN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) std::printf("%s\n", dlerror());
  CHECK(library != nullptr);
  if (library == nullptr) return {};
  const auto get = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
  const auto set = reinterpret_cast<SetLoggerFinder>(dlsym(library, "setLoggerFinder"));
  CHECK(get != nullptr && set != nullptr);
  if (get == nullptr || set == nullptr) return {};
  set(&g_finder);
  std::int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* found = get(count);
  std::vector<nvinfer1::IPluginCreatorV3One*> creators;
  for (std::int32_t i = 0; i < count; ++i) {
    CHECK(std::strcmp(found[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
    creators.push_back(static_cast<nvinfer1::IPluginCreatorV3One*>(found[i]));
  }
  return creators;
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

}  // namespace restorert::test

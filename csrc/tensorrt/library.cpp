// The face of librestorert_plugins.so: the two functions that TensorRT looks for in a library of V3
// plugins (IPluginRegistry::loadLibrary). Nothing here links to TensorRT.
#include <NvInferRuntime.h>

#include <array>
#include <atomic>
#include <cstdio>

#include "ops.h"
#include "tensorrt/logging.h"

#define RESTORERT_DECLARE_CREATOR(op)                  \
  namespace restorert::op {                            \
  nvinfer1::IPluginCreatorInterface* plugin_creator(); \
  }
RESTORERT_FOR_EACH_PLUGIN(RESTORERT_DECLARE_CREATOR)

namespace restorert::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> g_logger_finder{nullptr};

}  // namespace

void log_error(const std::string& message) noexcept {
  try {
    if (nvinfer1::ILoggerFinder* finder = g_logger_finder.load(); finder != nullptr) {
      if (nvinfer1::ILogger* logger = finder->findLogger(); logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
        return;
      }
    }
  } catch (...) {  // a logger that throws must not end the process
  }
  std::fprintf(stderr, "[restorert] %s\n", message.c_str());
}

}  // namespace restorert::tensorrt

#define RESTORERT_EXPORT extern "C" __attribute__((visibility("default")))

RESTORERT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  restorert::tensorrt::g_logger_finder.store(finder);
}

RESTORERT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
#define RESTORERT_CREATOR(op) restorert::op::plugin_creator(),
  static const std::array creators{RESTORERT_FOR_EACH_PLUGIN(RESTORERT_CREATOR)};
#undef RESTORERT_CREATOR
  count = static_cast<std::int32_t>(creators.size());
  return creators.data();
}

// Messages to whichever logger TensorRT handed to the plugin library.
#pragma once

#include <string>

namespace restorert::tensorrt {

// One error line to TensorRT's logger, or to stderr where there is none. Never throws.
void log_error(const std::string& message) noexcept;

}  // namespace restorert::tensorrt

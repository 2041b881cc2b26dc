// The result of a native call: a code and one line that names the op and the argument at fault.
#pragma once

#include <string>
#include <utility>

namespace restorert {

enum class StatusCode {
  kOk,
  kInvalidArgument,   // ValueError in Python
  kUnsupportedDType,  // TypeError in Python
  kNotCompiled,       // NotCompiledError in Python: this build lacks the kernels
  kCudaError,         // RuntimeError in Python
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status invalid(std::string message) {
    return {StatusCode::kInvalidArgument, std::move(message)};
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

}  // namespace restorert

#define RESTORERT_RETURN_IF_ERROR(expression)                                      \
  do {                                                                             \
    if (::restorert::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

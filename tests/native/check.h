// The least a test needs: CHECK counts failures and says where; main returns check_result().
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace restorert::test {

inline int failures = 0;

// A part of a test that cannot run here. With RESTORERT_REQUIRE_GPU=1 that is a failure, so that a
// machine with a GPU cannot pass by skipping.
inline void skip_gpu(const char* reason) {
  std::printf("SKIP: %s\n", reason);
  const char* required = std::getenv("RESTORERT_REQUIRE_GPU");
  if (required != nullptr && std::strcmp(required, "1") == 0) {
    std::printf("FAIL: RESTORERT_REQUIRE_GPU=1 and %s\n", reason);
    ++failures;
  }
}

inline int check_result() {
  std::printf(failures == 0 ? "PASS\n" : "FAILED: %d checks\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace restorert::test

#define CHECK(condition)                                                 \
  do {                                                                   \
    if (!(condition)) {                                                  \
      std::printf("%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #condition); \
      ++::restorert::test::failures;                                     \
    }                                                                    \
  } while (false)

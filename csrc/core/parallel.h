// A loop over independent items, shared among the threads of OpenMP where there is OpenMP. In a
// process that imported torch first this is torch's own pool (one libgomp), so
// torch.set_num_threads governs it.
#pragma once

#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace restorert {

inline int max_threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// Calls `function(item, worker)` for every item in [0, count), worker in [0, max_threads()).
// `function` must not throw. Items are handed out as threads come free: results must not depend on
// which worker does an item.
template <typename Function>
void parallel_for(std::int64_t count, bool parallel, const Function& function) {
#if defined(_OPENMP)
  if (parallel && count > 1 && omp_get_max_threads() > 1) {
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t item = 0; item < count; ++item) function(item, omp_get_thread_num());
    return;
  }
#endif
  static_cast<void>(parallel);
  for (std::int64_t item = 0; item < count; ++item) function(item, 0);
}

}  // namespace restorert

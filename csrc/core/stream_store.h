// Copying a cache-resident tile to memory past the caches. For outputs larger than the last-level
// cache this saves reading every line before overwriting it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace restorert {

// True where stream_copy does more than memcpy.
constexpr bool kHasStreamStores =
#if defined(__SSE2__)
    true;
#else
    false;
#endif

inline void stream_copy(void* destination, const void* source, std::size_t bytes) {
#if defined(__SSE2__)
  auto* to = static_cast<unsigned char*>(destination);
  const auto* from = static_cast<const unsigned char*>(source);
  const std::size_t head = (0U - reinterpret_cast<std::uintptr_t>(to)) % 16U;
  if (head < bytes) {
    std::memcpy(to, from, head);
    std::size_t i = head;
    for (; i + 16 <= bytes; i += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    }
    std::memcpy(to + i, from + i, bytes - i);
    return;
  }
#endif
  std::memcpy(destination, source, bytes);
}

// Orders the stores of stream_copy before whatever the thread stores next.
inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace restorert

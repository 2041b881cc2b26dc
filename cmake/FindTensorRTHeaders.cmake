# Finds TensorRT's C++ headers (the plugin library needs headers only; no TensorRT library is linked).
#
# Looks in TENSORRT_ROOT (cache variable or environment), then in the system's paths, then in the
# Python package kernel-lens of the interpreter found, which carries a copy of the headers.
#
# Result: TensorRTHeaders_FOUND, TensorRTHeaders_VERSION (such as 10.14.1) and the target
# TensorRT::Headers.
set(_restorert_trt_hints "")
if(TENSORRT_ROOT)
  list(APPEND _restorert_trt_hints "${TENSORRT_ROOT}")
endif()
if(DEFINED ENV{TENSORRT_ROOT})
  list(APPEND _restorert_trt_hints "$ENV{TENSORRT_ROOT}")
endif()
find_path(TensorRTHeaders_INCLUDE_DIR NvInferRuntime.h
          HINTS ${_restorert_trt_hints}
          PATH_SUFFIXES include include/x86_64-linux-gnu include/aarch64-linux-gnu)
if(NOT TensorRTHeaders_INCLUDE_DIR AND Python_EXECUTABLE)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u, os; s = u.find_spec('kernel_lens'); print(os.path.join(os.path.dirname(s.origin), 'include', 'tensorrt') if s and s.origin else '')"
    OUTPUT_VARIABLE _restorert_kernel_lens OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(_restorert_kernel_lens)
    find_path(TensorRTHeaders_INCLUDE_DIR NvInferRuntime.h PATHS "${_restorert_kernel_lens}"
              NO_DEFAULT_PATH)
  endif()
endif()
mark_as_advanced(TensorRTHeaders_INCLUDE_DIR)

set(TensorRTHeaders_VERSION "")
if(TensorRTHeaders_INCLUDE_DIR)
  # Releases differ in how they spell these: NV_TENSORRT_MAJOR 10, or a name that holds the number.
  file(STRINGS "${TensorRTHeaders_INCLUDE_DIR}/NvInferVersion.h" _restorert_trt_lines
       REGEX "^#define (NV_TENSORRT|TRT)_(MAJOR|MINOR|PATCH)(_ENTERPRISE)? +[0-9]+")
  foreach(_part MAJOR MINOR PATCH)
    if("${_restorert_trt_lines}" MATCHES "_${_part}[A-Z_]* +([0-9]+)")
      list(APPEND TensorRTHeaders_VERSION "${CMAKE_MATCH_1}")
    endif()
  endforeach()
  list(JOIN TensorRTHeaders_VERSION "." TensorRTHeaders_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRTHeaders
  REQUIRED_VARS TensorRTHeaders_INCLUDE_DIR VERSION_VAR TensorRTHeaders_VERSION)

if(TensorRTHeaders_FOUND AND NOT TARGET TensorRT::Headers)
  add_library(TensorRT::Headers INTERFACE IMPORTED)
  target_include_directories(TensorRT::Headers SYSTEM INTERFACE "${TensorRTHeaders_INCLUDE_DIR}")
endif()

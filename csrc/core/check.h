// Argument checks that every op shares. Each returns a status whose message is one line of the form
// "<op>: argument '<name>' has ...; expected ...".
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/status.h"
#include "core/tensor_view.h"

namespace restorert {

struct Argument {
  const char* name;
  const TensorView& view;
};

// Rank, sizes, dtype (fp32, fp16 or bf16), device, pointer and alignment: all but the strides.
Status check_tensor(const char* op, const Argument& argument, int rank, const char* axes);

// The same device (kind and index) as `reference`.
Status check_same_device(const char* op, const Argument& argument, const Argument& reference);

// The dtype of `reference` or, with `float32_too`, fp32.
Status check_dtype(const char* op, const Argument& argument, const Argument& reference,
                   bool float32_too);

// A contiguous vector of `length` elements, of type fp32 or of the type of `reference`.
Status check_parameter(const char* op, const Argument& argument, std::int64_t length,
                       const Argument& reference);

// A contiguous [rows, columns] matrix, `axes` by name, on the device of `reference`: of type fp32
// or, for a `parameter`, of the type of `reference`.
Status check_matrix(const char* op, const Argument& argument, std::int64_t rows,
                    std::int64_t columns, const char* axes, bool parameter,
                    const Argument& reference);

// check_tensor, and the shape, dtype and device of `reference`. Both 4-dimensional.
Status check_like(const char* op, const Argument& argument, const Argument& reference);

// `output` has the shape, dtype and device of `input`; both are dense in one layout, which is
// written to `*layout`; they share all of their memory (in place) or none of it. Both
// 4-dimensional.
Status check_elementwise_pair(const char* op, const Argument& input, const Argument& output,
                              Layout* layout);

// These sizes; `why` says where they come from, such as "the shape of 'x'".
Status check_shape(const char* op, const Argument& argument,
                   std::initializer_list<std::int64_t> sizes, const std::string& why);

// All are dense in one layout, which is written to `*layout`: the first one's, where it has only
// one. All 4-dimensional.
Status check_one_layout(const char* op, std::initializer_list<Argument> arguments, Layout* layout);

// `output` shares no memory with `input`, or all of it (in place), as with check_elementwise_pair.
Status check_in_place_or_disjoint(const char* op, const Argument& output, const Argument& input);

// `output` shares no memory with `input`.
Status check_disjoint(const char* op, const Argument& output, const Argument& input);

// A contiguous vector of bytes on the device of `reference`.
Status check_workspace(const char* op, const Argument& workspace, const Argument& reference);

// At least `needed` bytes of memory, 16-byte aligned.
Status check_workspace_memory(const char* op, const void* workspace, std::size_t size,
                              std::size_t needed);

// A finite number >= minimum.
Status check_number(const char* op, const char* name, double value, double minimum);

// Elements in a view whose sizes have been checked.
std::int64_t element_count(const TensorView& view);

bool has_layout(const TensorView& view, Layout layout);

}  // namespace restorert

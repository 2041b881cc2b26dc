// What the ops' bindings share: turning a status into a Python exception.
#pragma once

#include <pybind11/pybind11.h>

#include "core/status.h"

namespace restorert {

// Raises ValueError, TypeError, NotCompiledError or RuntimeError with the status's message, or does
// nothing. The caller holds the GIL.
void raise_if_error(const Status& status);

}  // namespace restorert

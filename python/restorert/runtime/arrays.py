"""Conversion of any library's arrays to tensors that share their memory, and back."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from restorert.errors import InputError, reason_of


def to_tensor(frames: Any) -> tuple[Tensor, Any]:
    """A tensor that shares the frames' memory, and a function back to the frames' type."""
    if isinstance(frames, Tensor):
        if frames.layout != torch.strided:
            raise InputError("frames are a sparse tensor; expected a dense one")
        return frames.detach(), lambda out: out
    if isinstance(frames, np.ndarray):
        if frames.dtype.byteorder not in ("=", "|") or frames.dtype == np.uint16:
            raise InputError(
                f"frames have dtype {frames.dtype}; expected uint8 or floats in native byte order"
            )
        # torch does not accept negative strides, and warns about read-only memory.
        array = np.ascontiguousarray(frames)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return torch.from_numpy(array), lambda out: out.numpy()
        except TypeError:
            raise InputError(
                f"frames have dtype {frames.dtype}; expected uint8 or floats"
            ) from None
    if hasattr(frames, "__dlpack__"):
        return _from_dlpack(frames), _from_dlpack_of(frames) or (lambda out: out)
    if hasattr(frames, "__cuda_array_interface__"):
        try:
            return torch.as_tensor(frames), lambda out: out
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"frames, a {type(frames).__name__}, cannot be read: {reason_of(error)}"
            ) from None
    raise InputError(
        f"frames are a {type(frames).__name__}; expected a numpy array, a torch tensor or a "
        "DLPack object"
    )


_DLPACK_CPU = 1


def _from_dlpack(frames: Any) -> Tensor:
    try:
        if frames.__dlpack_device__()[0] == _DLPACK_CPU:
            with contextlib.suppress(BufferError, RuntimeError):  # numpy has no bfloat16
                return to_tensor(np.from_dlpack(frames))[0]
        # Unlike numpy, which cannot read GPU memory, torch aborts the process on negative strides.
        if any(stride < 0 for stride in getattr(frames, "strides", None) or ()):
            raise InputError("frames have negative strides; pass a contiguous copy of them")
        return torch.utils.dlpack.from_dlpack(frames)
    except InputError:
        raise
    except Exception as error:  # a foreign object can raise anything
        raise InputError(
            f"frames, a {type(frames).__name__}, cannot be read through DLPack: {reason_of(error)}"
        ) from None


def _from_dlpack_of(frames: Any) -> Any:
    """``from_dlpack`` of the array's own library, or None if it has none."""
    if hasattr(frames, "__array_namespace__"):  # the array API standard
        return getattr(frames.__array_namespace__(), "from_dlpack", None)
    kind = type(frames)
    module = sys.modules.get(kind.__module__.split(".")[0])
    return getattr(kind, "from_dlpack", None) or getattr(module, "from_dlpack", None)

"""The input shapes that an engine accepts, in trtexec's syntax."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from restorert.errors import InputError
from restorert.spec import padded_size

Shape = tuple[int, int, int, int]

# TensorRT's own limit on a tensor's elements and on one dimension.
_LARGEST_DIMENSION = 2**31 - 1


def parse_shape(text: str) -> Shape:
    """``"1x3x720x1280"`` or ``"input:1x3x720x1280"`` (trtexec's syntax) -> (1, 3, 720, 1280).

    Raises:
        InputError: anything else.
    """
    size = r"(\d{1,10})"  # ten digits hold the largest dimension
    match = re.fullmatch(rf"(?:[A-Za-z_]\w*:)?{size}x{size}x{size}x{size}", text.strip(), re.ASCII)
    if not match:
        raise InputError(f"{text[:80]!r} is not a shape; write NxCxHxW, for example 1x3x720x1280")
    return _checked(int(part) for part in match.groups())


def parse_size(text: str) -> tuple[int, int]:
    """``"1280x720"`` (width x height, as video sizes are written) -> (height, width) = (720, 1280).

    Raises:
        InputError: anything else.
    """
    match = re.fullmatch(r"(\d{1,10})x(\d{1,10})", text.strip(), re.ASCII)
    if not match or not all(0 < int(part) <= _LARGEST_DIMENSION for part in match.groups()):
        raise InputError(f"{text[:80]!r} is not a size; write WIDTHxHEIGHT, for example 1280x720")
    return int(match[2]), int(match[1])


def format_shape(shape: Sequence[int]) -> str:
    """(1, 3, 720, 1280) -> ``"1x3x720x1280"``."""
    return "x".join(map(str, shape))


def _checked(values: Iterable[object]) -> Shape:
    given: tuple[Any, ...] = tuple(values)
    try:
        # operator.index also accepts NumPy's integers; a bool is a subclass of int.
        n, c, h, w = (operator.index(v) for v in given if not isinstance(v, bool))
    except (TypeError, ValueError):
        pass
    else:
        if all(0 < v <= _LARGEST_DIMENSION for v in (n, c, h, w)) and len(given) == 4:
            return n, c, h, w
    raise InputError(f"{_shown(given)} is not an [N, C, H, W] shape of positive integers")


def _shown(values: tuple[Any, ...]) -> str:
    try:
        text = repr(values)
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = "a shape of huge integers"
    return text if len(text) <= 80 else f"{text[:80]}..."


@dataclass(frozen=True)
class ShapeProfile:
    """The smallest, optimal and largest [N, C, H, W] that an engine accepts."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        for name in ("min", "opt", "max"):
            object.__setattr__(self, name, _checked(getattr(self, name)))
        if not all(a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=True)):
            raise InputError(f"profile {self} is not ordered: every size needs min <= opt <= max")
        if len({self.min[1], self.opt[1], self.max[1]}) != 1:
            raise InputError(f"profile {self} has different channel counts")

    @classmethod
    def fixed(cls, shape: Sequence[int]) -> ShapeProfile:
        """A profile of a single shape."""
        only = _checked(shape)
        return cls(only, only, only)

    @classmethod
    def up_to(cls, shape: Sequence[int], multiple: int) -> ShapeProfile:
        """A profile optimised for ``shape`` that accepts any smaller batch, height and width.

        ``multiple`` is the network's size multiple; height and width of ``shape`` are rounded up
        to it, because the engine pads its input.
        """
        n, c, h, w = _checked(shape)
        largest = _checked((n, c, padded_size(h, multiple), padded_size(w, multiple)))
        return cls((1, c, multiple, multiple), largest, largest)

    @property
    def dynamic(self) -> bool:
        return self.min != self.max

    def __str__(self) -> str:
        shapes = [format_shape(s) for s in (self.min, self.opt, self.max)]
        return shapes[0] if not self.dynamic else " / ".join(shapes)

    def trtexec_flags(self, input_name: str = "input") -> str:
        """The same profile as trtexec's flags."""
        if not self.dynamic:
            return f"--shapes={input_name}:{format_shape(self.opt)}"
        return " ".join(
            f"--{name}Shapes={input_name}:{format_shape(getattr(self, name))}"
            for name in ("min", "opt", "max")
        )

    def to_json(self) -> dict[str, list[int]]:
        return {name: list(getattr(self, name)) for name in ("min", "opt", "max")}

    @classmethod
    def from_json(cls, value: object) -> ShapeProfile:
        """The inverse of `to_json`.

        Raises:
            InputError: ``value`` is not such a mapping.
        """
        if (
            not isinstance(value, dict)
            or set(value) != {"min", "opt", "max"}
            or not all(isinstance(shape, (list, tuple)) for shape in value.values())
        ):
            raise InputError("a profile needs min, opt and max, each [N, C, H, W]")
        return cls(**{name: tuple(shape) for name, shape in value.items()})

"""Shapes and profiles from any text and any JSON."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from restorert.engine import ShapeProfile
from restorert.engine.profile import format_shape, parse_shape, parse_size
from restorert.errors import InputError

LARGEST = 2**31 - 1
sizes = st.integers(1, LARGEST)
shapes = st.tuples(sizes, sizes, sizes, sizes)


@st.composite
def profiles(draw: st.DrawFn) -> ShapeProfile:
    channels = draw(sizes)
    columns = [sorted(draw(st.tuples(sizes, sizes, sizes))) for _ in range(3)]
    return ShapeProfile(*((n, channels, h, w) for n, h, w in zip(*columns, strict=True)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


@given(shapes, st.sampled_from(["", "input:", "x_1:"]))
def test_shape_round_trip(shape: tuple[int, ...], name: str) -> None:
    assert parse_shape(name + format_shape(shape)) == shape


@given(sizes, sizes)
def test_size_is_width_by_height(height: int, width: int) -> None:
    assert parse_size(f"{width}x{height}") == (height, width)


# Texts near to shapes, which plain text seldom is.
near = st.text(st.sampled_from("0123456789xX:.-+ einput\n\u0663_"), max_size=40)


@given(st.text() | near)
@example("1x3x" + "9" * 5000 + "x4")
@example("9" * 5000 + "x4")
@example("1x3x0x4")
@example("1x3x2147483648x4")
@example("\u0661x\u0663x\u0664x\u0664")
def test_any_other_text_is_an_input_error(text: str) -> None:
    for parse, parts in ((parse_shape, 4), (parse_size, 2)):
        found, message = None, ""
        try:
            found = parse(text)
        except InputError as error:
            message = str(error)
        assert found is None or len(found) == parts
        assert all(0 < size <= LARGEST for size in found or ())
        assert "\n" not in message
        assert len(message) < 600


@given(profiles())
def test_json_round_trip(profile: ShapeProfile) -> None:
    assert ShapeProfile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


@given(json_values | st.fixed_dictionaries(dict.fromkeys(("min", "opt", "max"), json_values)))
@example({"min": [1, 3, 16**9000, 4], "opt": [1, 3, 4, 4], "max": [1, 3, 4, 4]})
def test_any_other_json_is_an_input_error(value: object) -> None:
    try:
        profile = ShapeProfile.from_json(value)
    except InputError as error:
        message = str(error)
    else:
        message = str(profile)
    assert "\n" not in message


@given(profiles())
def test_trtexec_flags_parse_back(profile: ShapeProfile) -> None:
    parser = argparse.ArgumentParser()
    for name in ("shapes", "minShapes", "optShapes", "maxShapes"):
        parser.add_argument(f"--{name}", type=parse_shape)
    found = parser.parse_args(profile.trtexec_flags().split())
    if profile.dynamic:
        assert ShapeProfile(found.minShapes, found.optShapes, found.maxShapes) == profile
    else:
        assert ShapeProfile.fixed(found.shapes) == profile


@given(st.tuples(*[st.integers(1, 5000)] * 4), st.integers(1, 64))
def test_up_to(shape: tuple[int, ...], multiple: int) -> None:
    profile = ShapeProfile.up_to(shape, multiple)
    assert profile.opt == profile.max
    assert profile.min == (1, shape[1], multiple, multiple)
    for asked, largest in zip(shape[2:], profile.max[2:], strict=True):
        assert largest % multiple == 0
        assert 0 <= largest - asked < multiple


def test_numpy_integers_are_sizes() -> None:
    profile = ShapeProfile.fixed(np.array([1, 3, 16, 16]))
    assert profile == ShapeProfile.fixed((1, 3, 16, 16))
    assert json.dumps(profile.to_json())


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (((1, 3, 32, 16), (1, 3, 16, 16), (1, 3, 64, 64)), "not ordered"),
        (((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 32, 64)), "not ordered"),
        (((2, 3, 16, 16), (1, 3, 64, 64), (1, 3, 64, 64)), "not ordered"),
        (((1, 1, 16, 16), (1, 3, 16, 16), (1, 3, 16, 16)), "different channel counts"),
        (((1, 3, 16), (1, 3, 16, 16), (1, 3, 16, 16)), "is not an"),
        (((1, 3, 16, 16, 1), (1, 3, 16, 16), (1, 3, 16, 16)), "is not an"),
        (((1, 3, 16, True), (1, 3, 16, 16), (1, 3, 16, 16)), "is not an"),
        (((1, 3, 16, 16.0), (1, 3, 16, 16), (1, 3, 16, 16)), "is not an"),
        (((1, 3, 16, "16"), (1, 3, 16, 16), (1, 3, 16, 16)), "is not an"),
    ],
)
def test_refused_profiles(bounds: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShapeProfile(*bounds)

"""Recipes: those of the repository, and everything a file may hold instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import restorert as rr
from restorert.engine.recipe import BuilderOptions, read_recipe
from restorert.errors import InputError, RecipeError
from restorert.spec import check_shape

RECIPES = sorted((Path(__file__).parents[2] / "engines").glob("*.toml"))
GOOD = """
network = "hinet"
precision = "fp16"
[profile]
min = [1, 3, 16, 16]
opt = [1, 3, 32, 32]
max = [2, 3, 64, 64]
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_of_the_repository(path: Path) -> None:
    recipe = read_recipe(path)
    spec = rr.network_spec(recipe.network)
    assert spec.family == path.stem
    for bound in (recipe.profile.min, recipe.profile.opt, recipe.profile.max):
        check_shape(spec, bound)


def test_every_family_has_a_recipe() -> None:
    assert {path.stem for path in RECIPES} == {
        rr.network_spec(name).family for name in rr.list_networks()
    }


def test_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD)
    recipe = read_recipe(path)
    assert recipe.options == BuilderOptions()
    assert (recipe.network, recipe.precision) == ("hinet", "fp16")
    assert recipe.profile.max == (2, 3, 64, 64)


def test_builder_table(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        f"{GOOD}\n[builder]\nworkspace_mib = 512\noptimization_level = 0\n"
        'compute_capabilities = ["8.9", "12.0"]\n'
    )
    assert read_recipe(path).options == BuilderOptions(512, 0, ("8.9", "12.0"))


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD.replace("fp16", "int8").replace("[profile]", LIMITS))
    recipe = read_recipe(path)
    assert recipe.precision == "int8"
    assert recipe.limits == {"int8": 0.2, "fp16": 0.0}


LIMITS = "[limits]\nint8 = 0.2\nfp16 = 0\n[profile]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('network = "hinet"', "", "key 'network' is missing"),
        ('network = "hinet"', "network = 3", "network must be a string"),
        ('network = "hinet"', 'network = "hinet"\nbatch = 3', "unknown key 'batch'; expected"),
        ('precision = "fp16"', "", "key 'precision' is missing"),
        ('precision = "fp16"', 'precision = "int3"', "unknown precision 'int3'"),
        ("[profile]", "[shapes]", "unknown key 'shapes'"),
        ("[profile]", "limits = 3\n[profile]", "limits must be a table"),
        (
            "[profile]",
            "[limits]\nint3 = 0.1\n[profile]",
            "unknown key 'limits.int3'; expected fp32",
        ),
        ("[profile]", "[limits]\nint8 = -1\n[profile]", "limits.int8 must be dB >= 0"),
        ("[profile]", "[limits]\nint8 = nan\n[profile]", "limits.int8 must be dB >= 0"),
        ("[profile]", "[limits]\nint8 = true\n[profile]", "limits.int8 must be dB >= 0"),
        (
            "[profile]",
            f"[limits]\nint8 = 1{'0' * 400}\n[profile]",
            "limits.int8 must be dB >= 0",
        ),
        ('"hinet"', '"hinet-tinny"', "unknown network 'hinet-tinny'; did you mean hinet-tiny"),
        ("min = [1, 3, 16, 16]", "", "needs min, opt and max"),
        ("min = [1, 3, 16, 16]", "min = 3", "needs min, opt and max"),
        ("min = [1, 3, 16, 16]", 'min = "1x3x16x16"', "needs min, opt and max"),
        ("min = [1, 3, 16, 16]", "min = [1, 3, 16]", "is not an"),
        ("min = [1, 3, 16, 16]", "min = [1, 3, 16, 1.5]", "is not an"),
        ("min = [1, 3, 16, 16]", "min = [1, 3, 48, 16]", "not ordered"),
        ("min = [1, 3, 16, 16]", f"min = [1, 3, 0x{'f' * 9000}, 16]", "huge integers"),
        ("min = [1, 3, 16, 16]", f"min = {'[' * 9000}", "not a TOML file"),
        ("min = [1, 3, 16, 16]", f"min = {'9' * 9000}", "not a TOML file"),
        ("min = [1, 3, 16, 16]", "min = [1, 3,", "not a TOML file"),
    ],
)
def test_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimization_level = 6", "expected 0 to 5"),
        ("optimization_level = -1", "expected 0 to 5"),
        (f"optimization_level = 0x{'f' * 9000}", "expected 0 to 5"),
        ("optimization_level = true", "builder.optimization_level must be a whole number"),
        ("optimization_level = 1.0", "builder.optimization_level must be a whole number"),
        ("workspace_mib = 0", "expected 1 to"),
        ("workspace_mib = 1000000000", "expected 1 to"),
        ('workspace_mib = "4"', "builder.workspace_mib must be a whole number"),
        ('compute_capabilities = "8.9"', "builder.compute_capabilities must be a list"),
        ("compute_capabilities = [8.9]", "a list in which each item is a string"),
        ("fp16 = true", "unknown key 'builder.fp16'"),
        ('"a\\nb" = 1', r"unknown key 'builder.a\\nb'"),
    ],
)
def test_refused_builder(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"{GOOD}\n[builder]\n{line}\n")
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_builder_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"builder = 3\n{GOOD}")
    with pytest.raises(RecipeError, match="builder must be a table"):
        read_recipe(path)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="Is a directory"):
        read_recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'network = "h\xefnet"')
    with pytest.raises(RecipeError, match="not a TOML file"):
        read_recipe(tmp_path / "latin.toml")


@given(st.text() | st.lists(st.sampled_from(GOOD.split() + ["[[", "'", "=", "-1", "\n"])))
def test_any_other_text_is_a_recipe_error(tmp_path: Path, text: str | list[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes((text if isinstance(text, str) else " ".join(text)).encode("utf-8", "replace"))
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"optimization_level": 9}, {"workspace_mib": 0}, {"workspace_mib": 2**40}]
)
def test_options_out_of_range(values: dict[str, int]) -> None:
    with pytest.raises(InputError, match="out of range"):
        BuilderOptions(**values)

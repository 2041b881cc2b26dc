"""From checkpoint to network and back."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from restorert.errors import CheckpointError, UnknownNetworkError
from restorert.networks import FAMILIES, create_network, list_networks, network_spec
from restorert.weights import load_network, save_network, weights_hash

SMALL = {"width": 4, "depth": 3, "hin_levels": (1, 2)}


def small(name: str = "hinet", seed: int = 0, **config: object) -> torch.nn.Module:
    return create_network(name, seed=seed, **{**SMALL, **config})


def refusal(path: Path, **arguments: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_network(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"width": 8},
        {"depth": 2, "hin_levels": (0, 1)},
        {"depth": 4, "hin_levels": (0, -1)},
        {"in_channels": 1},
    ],
)
@pytest.mark.parametrize("container", ["params", "module", "safetensors"])
def test_round_trip_gives_the_same_network(
    tmp_path: Path, config: dict[str, object], container: str
) -> None:
    network = small(**config)
    path = tmp_path / "net.pth"
    if container == "safetensors":
        save_network(network, path)
    elif container == "params":
        torch.save({"params": network.state_dict()}, path)
    else:
        states = {f"module.{name}": value for name, value in network.state_dict().items()}
        torch.save({"epoch": 1, "state_dict": states}, path)
    loaded = load_network(path)
    assert loaded.config == network.config
    assert not loaded.training
    size = loaded.spec.size_multiple
    assert loaded.checkpoint.path == path
    assert loaded.checkpoint.format == (
        "safetensors" if container == "safetensors" else "torch-zip"
    )
    assert loaded.checkpoint.sha256 == weights_hash(network)
    # In float64, which needs no compiled kernel.
    x = torch.rand(1, network.config.in_channels, 2 * size, 3 * size, dtype=torch.float64)
    assert torch.equal(loaded.double()(x), network.double()(x))


@pytest.mark.slow
def test_full_size_hinet_gopro(tmp_path: Path) -> None:
    network = create_network("hinet-gopro")
    path = tmp_path / "HINet-GoPro.pth"
    torch.save({"params": network.state_dict()}, path)
    loaded = load_network(path)
    assert loaded.spec == network_spec("hinet-gopro")
    assert sum(p.numel() for p in loaded.parameters()) == sum(
        p.numel() for p in network.parameters()
    )
    assert loaded.checkpoint.sha256 == weights_hash(network)
    # Equal sizes are told apart by the file's name or by what is asked for; others are refused.
    assert load_network(path, name="hinet-reds").spec == network_spec("hinet-reds")
    message = refusal(path, name="hinet-rain")
    assert "holds no hinet-rain: its tensors are those of hinet-gopro or hinet-reds" in message


def test_the_name_is_kept_by_save_network(tmp_path: Path) -> None:
    path = tmp_path / "HINet-GoPro.safetensors"  # the note wins over the file's name
    save_network(small("hinet-rain"), path)
    assert load_network(path).spec.name == "hinet-rain"
    assert load_network(path, name="hinet-sidd").spec.name == "hinet-sidd"
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["restorert.network"] == "hinet-rain"


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    save_network(small(), path := tmp_path / "a")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_network(path)
    assert torch.equal(torch.rand(3), expected)


def test_unknown_name_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNetworkError, match="hinet"):
        load_network(tmp_path / "missing", name="hintet")


def test_tensors_of_no_network(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"layer1.weight": torch.zeros(1), "layer1.bias": torch.zeros(1)}, path)
    message = refusal(path)
    assert "2 tensors of no network" in message
    assert "layer1.weight, layer1.bias" in message
    assert "families: hinet" in message
    states = small().state_dict()
    del states["cat12.weight"]
    torch.save(states, path)
    message = refusal(path)
    assert "the nearest is hinet" in message


@pytest.mark.parametrize("name", [None, "hinet"])
def test_tensors_that_do_not_fit(tmp_path: Path, name: str | None) -> None:
    path = tmp_path / "net.pth"
    good = small().state_dict()
    arguments = {} if name is None else {"name": name}

    torch.save({k: v for k, v in good.items() if not k.startswith("skip_conv_1.")}, path)
    expected = [k for k in good if k.startswith("skip_conv_1.")]
    message = refusal(path, **arguments)
    assert f"{len(expected)} missing ({', '.join(expected[:3])}, ...)" in message

    torch.save({**good, "head.weight": torch.zeros(1)}, path)
    assert "1 not of this network (head.weight)" in refusal(path, **arguments)

    torch.save({**good, "last.bias": torch.zeros(5)}, path)
    message = refusal(path, **arguments)
    assert "hinet tensors" in message
    assert "1 of another shape (last.bias (5,) instead of (3,))" in message

    torch.save({**good, "last.bias": torch.zeros(3, dtype=torch.int8)}, path)
    assert "last.bias" in refusal(path, **arguments)


@pytest.mark.parametrize("width", [2**20, 2**40])
def test_absurd_sizes_cost_no_memory(tmp_path: Path, width: int) -> None:
    path = tmp_path / "net.pth"
    states = {k: torch.zeros(0) for k in small().state_dict()}
    states["conv_01.weight"] = torch.zeros(width, 0, 3, 3)
    torch.save(states, path)
    refusal(path)
    states["conv_01.weight"] = torch.zeros(width, 3, 0, 3)
    torch.save(states, path)
    refusal(path)


@pytest.mark.slow
@settings(max_examples=60)
@given(data=st.data())
def test_changed_state_dicts_load_or_are_refused_in_one_line(
    tmp_path: Path, data: st.DataObject
) -> None:
    states = small(depth=2, hin_levels=(0, 1)).state_dict()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(states)))
        change = data.draw(st.sampled_from(["drop", "reshape", "rename", "level"]))
        tensor = states.pop(name)
        if change == "reshape":
            shape = data.draw(st.lists(st.integers(0, 5), max_size=5))
            states[name] = torch.zeros(shape)
        elif change == "rename":
            states[data.draw(st.text(max_size=12))] = tensor
        elif change == "level":
            states[f"down_path_1.{data.draw(st.text('0123456789²-x', max_size=4))}.w"] = tensor
    original = small(depth=2, hin_levels=(0, 1)).state_dict()
    assume(
        states
        and {k: v.shape for k, v in states.items()} != {k: v.shape for k, v in original.items()}
    )
    path = tmp_path / "net.pth"
    torch.save(states, path)
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e300])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    states = {name: tensor.double() for name, tensor in small().state_dict().items()}
    names = list(states)
    for name in names[3:5]:
        states[name].view(-1)[-1] = value  # 1e300 is too large for float32
    torch.save(states, path := tmp_path / "net.pth")
    assert f"{names[3]} holds values that are not finite" in refusal(path)


def test_names_from_the_file_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"\n\x1b[2J": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    assert str(caught.value).isprintable()


# ---- the hash ------------------------------------------------------------------------------------


def test_hash_is_stable_and_sees_every_change() -> None:
    network = small()
    original = weights_hash(network)
    assert weights_hash(small()) == original
    assert weights_hash(network.to(memory_format=torch.channels_last)) == original
    assert weights_hash(small(seed=1)) != original
    assert weights_hash(small().half()) != original
    changed = small()
    changed.last.bias.data[0] = torch.nextafter(changed.last.bias.data[0], torch.tensor(9.0))
    assert weights_hash(changed) != original


def test_hash_follows_its_definition() -> None:
    """A two-tensor module, hashed by hand."""
    module = torch.nn.Linear(2, 1)
    module.weight.data = torch.tensor([[1.0, -2.0]])
    module.bias.data = torch.tensor([0.5])
    by_hand = hashlib.sha256(
        b'["bias", "torch.float32", [1]]'
        + bytes.fromhex("0000003f")
        + b'["weight", "torch.float32", [1, 2]]'
        + bytes.fromhex("0000803f000000c0")
    )
    assert weights_hash(module) == by_hand.hexdigest()


def test_hash_is_equal_in_another_process() -> None:
    code = (
        "from restorert.networks import create_network; from restorert.weights import weights_hash;"
        f"print(weights_hash(create_network('hinet', **{SMALL!r})))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.strip() == weights_hash(small())


# ---- writing -------------------------------------------------------------------------------------


def test_half_precision_is_written_as_it_is(tmp_path: Path) -> None:
    save_network(small().half(), path := tmp_path / "half.safetensors")
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("last.weight").dtype == torch.float16
    loaded = load_network(path)
    assert torch.equal(loaded.last.weight, small().last.weight.half().float())


def test_shared_tensors_are_written(tmp_path: Path) -> None:
    network = small()
    network.conv_02.weight = network.conv_01.weight
    save_network(network, path := tmp_path / "shared")
    assert torch.equal(load_network(path).conv_02.weight, network.conv_01.weight)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(small(), path := tmp_path / "net.safetensors")
    before = path.read_bytes()

    def full(tensors: object, filename: Path, **kwargs: object) -> None:
        Path(filename).write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("restorert.weights.load.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_network(small(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        save_network(small(), tmp_path / "missing" / "net.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        save_network(small(), tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    save_network(small(), real := tmp_path / "real.safetensors")
    umask = os.umask(0)
    os.umask(umask)
    assert real.stat().st_mode & 0o777 == 0o666 & ~umask
    real.chmod(0o640)
    (link := tmp_path / "link.safetensors").symlink_to(real)
    save_network(small(seed=1), link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert load_network(real).checkpoint.sha256 == weights_hash(small(seed=1))


@pytest.mark.slow
def test_every_family_is_recognised_by_its_own_default_tensors() -> None:
    """A new network without a checkpoint recogniser fails here (on the meta device: no memory)."""
    for family in FAMILIES:
        for name, spec in family.variants.items():
            with torch.device("meta"):
                states = family.build(spec.config).state_dict()
            claimed = [f.name for f in FAMILIES if f.config_from_state_dict(states) is not None]
            assert claimed == [family.name], name
            found = family.config_from_state_dict(states)
            assert family.same_tensors(found, spec.config)
    assert set(list_networks()) == {name for f in FAMILIES for name in f.variants}

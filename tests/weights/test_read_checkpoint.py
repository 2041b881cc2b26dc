"""Reading checkpoints: every format, every wrapper, and files that are hostile or other things."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from restorert.errors import CheckpointError
from restorert.weights import read_checkpoint

TENSORS = {
    "conv.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2) / 7,
    "conv.bias": torch.tensor([-1.5, 3e-6]),
    "norm.num_batches_tracked": torch.tensor(7),
}
SETTINGS = settings(max_examples=150)


def write_torch(path: Path, content: object, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(path: Path) -> str:
    """The message of the error, which is one line and names the file."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 600
    return message


class RunsCode:
    """Creates a file where something unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_torch_formats_whatever_the_suffix(tmp_path: Path, legacy: bool, suffix: str) -> None:
    found = read_checkpoint(write_torch(tmp_path / f"net{suffix}", TENSORS, legacy))
    assert found.source.format == ("torch-legacy" if legacy else "torch-zip")
    assert found.source.key == ""
    assert list(found.tensors) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_safetensors_whatever_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    save_file(TENSORS, path, metadata={"note": "hello"})
    found = read_checkpoint(path)
    assert found.source.format == "safetensors"
    assert found.source.metadata == {"note": "hello"}
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda s: {"params": s}, "params"),
        (lambda s: {"params_ema": s, "params": {"x": torch.zeros(1)}}, "params_ema"),
        (lambda s: {"params": {"x": torch.zeros(1)}, "params_ema": s}, "params_ema"),
        (lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}}, "state_dict"),
        (lambda s: {"model": s, "iteration": 5}, "model"),
        (lambda s: {"model": {"state_dict": s, "arch": "x"}}, "model.state_dict"),
        (collections.OrderedDict, ""),
    ],
)
def test_wrappers(tmp_path: Path, wrap, key: str, legacy: bool) -> None:
    found = read_checkpoint(write_torch(tmp_path / "net.pth", wrap(TENSORS), legacy))
    assert found.source.key == key
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
def test_prefixes_go_where_every_name_has_them(tmp_path: Path, prefix: str) -> None:
    wrapped = {"state_dict": {prefix + name: tensor for name, tensor in TENSORS.items()}}
    assert list(read_checkpoint(write_torch(tmp_path / "a", wrapped)).tensors) == list(TENSORS)
    mixed = {**wrapped["state_dict"], "head.weight": torch.zeros(1)}
    assert list(read_checkpoint(write_torch(tmp_path / "b", mixed)).tensors) == list(mixed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("container", ["torch", "safetensors"])
def test_floats_become_float32(tmp_path: Path, dtype: torch.dtype, container: str) -> None:
    values = torch.tensor([1 / 3, -2.5e-3, 6.0e4], dtype=torch.float64).to(dtype)
    if container == "torch":
        path = write_torch(tmp_path / "a", {"w": values})
    else:
        save_file({"w": values}, path := tmp_path / "a")
    found = read_checkpoint(path).tensors["w"]
    assert found.dtype == torch.float32
    # numpy's own narrowing is the oracle; half precision is a subset of float32.
    expected = np.array([float(v) for v in values], dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_parameters_and_views_become_plain_contiguous_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    saved = {"p": torch.nn.Parameter(base.clone()), "t": base.T, "row": base[1]}
    found = read_checkpoint(write_torch(tmp_path / "a", saved)).tensors
    assert type(found["p"]) is torch.Tensor
    assert not found["p"].requires_grad
    assert found["t"].is_contiguous()
    assert found["t"].tolist() == base.T.tolist()
    assert found["row"].tolist() == [4.0, 5.0, 6.0, 7.0]


# ---- what is refused -----------------------------------------------------------------------------


def picture_bytes(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, kind)
    return file.getvalue()


def tar_bytes() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "HTML page"),
        (b"\n\n  <HTML><head>", "HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            "Git LFS pointer, not a checkpoint; run `git lfs pull`",
        ),
        (picture_bytes("PNG"), "PNG picture"),
        (picture_bytes("JPEG"), "JPEG picture"),
        (picture_bytes("WEBP"), "WebP picture"),
        (picture_bytes("TIFF"), "TIFF picture"),
        (tar_bytes(), "tar archive, not a checkpoint; unpack"),
        (b"\x1f\x8b\x08\x00 some gzip", "gzip archive"),
        (b"some text", "neither a PyTorch checkpoint nor a safetensors file"),
        (b"\x80", "neither a PyTorch checkpoint"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    assert said in refusal(path)


def test_missing_file_folder_and_impossible_name(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.pth")
    assert "folder" in refusal(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint("a\0b")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_torch(tmp_path / "net.pth", TENSORS)

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    message = refusal(path)
    monkeypatch.undo()
    assert "Permission denied" in message


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_is_refused_by_name_and_never_run(tmp_path: Path, legacy: bool) -> None:
    witness = tmp_path / "witness"
    wrapped = {"state_dict": TENSORS, "extra": RunsCode(witness)}
    message = refusal(write_torch(tmp_path / "evil.pth", wrapped, legacy))
    assert "posix.mkdir was refused" in message or "nt.mkdir was refused" in message
    assert not witness.exists()
    # The file is a real attack: torch's own unsafe loading falls for it.
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert witness.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_never_unpickled(tmp_path: Path, protocol: int) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(RunsCode(witness), protocol=protocol))
    message = refusal(path)
    if protocol >= 2:  # older ones have no mark that tells them from text
        assert "plain pickle of posix.mkdir" in message or "nt.mkdir" in message
    assert not witness.exists()


def test_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(write_torch(tmp_path / "net.pth", torch.nn.Conv2d(1, 1, 1)))
    assert "torch.nn.modules.conv.Conv2d was refused" in message
    assert "state_dict" in message


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4)).save(str(path))
    assert "TorchScript" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"generator": TENSORS, "epoch": 1}, "under the key 'generator'"),
        ({"params": {"G": TENSORS, "D": TENSORS}}, "under 'params' under the key 'G'"),
        ({"epoch": 9, "iter": 100, "optimizers": [], "schedulers": []}, "training state"),
        ({"a.weight": torch.zeros(1), "a.scale": 3.0}, "'a.scale' is a float and not a tensor"),
        ({"state_dict": {"a": torch.zeros(1), "b": None}}, "'b' under 'state_dict' is a NoneType"),
        ({"epoch": 1, "loss": 0.5}, "its keys are 'epoch', 'loss'"),
        ({}, "empty state dict"),
        ({"params": {}}, "empty state dict under 'params'"),
        ([torch.zeros(1)], "a list"),
        (torch.zeros(2, 3), "one tensor of shape (2, 3)"),
        (3, "a int"),
        ({3: torch.zeros(1)}, "the name 3, not a string"),
        ({"a": torch.zeros(1).expand(10**12)}, "larger than its own data"),
        ({"a": torch.zeros(1, dtype=torch.complex64)}, "complex64"),
        ({"a": torch.eye(3).to_sparse()}, "sparse"),
        ({"a": torch.zeros(3, device="meta")}, "meta"),
    ],
)
def test_contents_without_a_state_dict(tmp_path: Path, content: object, said: str) -> None:
    assert said in refusal(write_torch(tmp_path / "net.pth", content))


def test_numpy_values_are_refused(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "net.pth", {"state_dict": TENSORS, "psnr": np.float64(30)})
    assert "numpy" in refusal(path)


def test_zip_archives_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "net.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("HINet/net.pth", b"...")
    assert "no PyTorch checkpoint (it holds HINet/net.pth)" in refusal(path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert "empty zip" in refusal(path)


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    good = write_torch(tmp_path / "good.pth", {"a": torch.zeros(10**6)})
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert bomb.stat().st_size < good.stat().st_size / 50
    assert "unpack to more than" in refusal(bomb)


def valid_file(folder: Path, kind: str) -> Path:
    path = folder / f"valid-{kind}"
    if not path.exists():
        if kind == "safetensors":
            save_file(TENSORS, path)
        else:
            write_torch(path, {"params": TENSORS}, legacy=kind == "legacy")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_refused(tmp_path: Path, kind: str) -> None:
    content = valid_file(tmp_path, kind).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        message = refusal(path)
    assert "truncated" in message
    assert "download it again" in message


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@SETTINGS
@given(data=st.data())
def test_damaged_files_give_checkpoint_errors_only(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    content = bytearray(valid_file(tmp_path, kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content)
    message = ""
    try:
        found = read_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
    else:  # damage inside the numbers cannot be seen
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.tensors.values())
    assert "\n" not in message


@SETTINGS
@given(
    head=st.sampled_from(
        [
            b"",
            b"PK\x03\x04",
            b"\x80\x02",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            b"\x10" + bytes(7) + b"{",
        ]
    ),
    tail=st.binary(max_size=300),
)
def test_random_bytes_give_checkpoint_errors_only(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "random"
    path.write_bytes(head + tail)
    refusal(path)


@SETTINGS
@given(pickled=st.binary(max_size=200))
def test_random_pickles_in_a_valid_archive(tmp_path: Path, pickled: bytes) -> None:
    path = tmp_path / "random.pth"
    with zipfile.ZipFile(valid_file(tmp_path, "zip")) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, b"\x80\x02" + pickled if is_pickle else old.read(entry))
    refusal(path)


def test_safetensors_header_of_absurd_length(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "truncated safetensors" in refusal(path)

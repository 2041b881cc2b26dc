"""TensorFlow's V2 checkpoints: one that TensorFlow wrote, ones made here, and damaged ones."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_files as files
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import restorert as rr
from restorert.errors import CheckpointError
from restorert.weights import read_checkpoint

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/official_figures"))
from seeded import load_seeded

# Written by TensorFlow 2.21: scripts/official_figures/srn.py
REAL = Path(__file__).parent / "data/srn-miniature"
SETTINGS = settings(max_examples=150)
VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7
CRC = files.masked(VALUES.tobytes())


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


def read_or_refuse(path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors, or None where a printable error refuses the file."""
    message = ""
    try:
        return dict(read_checkpoint(path).tensors)
    except CheckpointError as error:
        message = str(error)
    assert message.isprintable()
    return None


def copied(folder: Path) -> Path:
    for path in REAL.parent.glob(f"{REAL.name}.*"):
        shutil.copy(path, folder)
    return folder / REAL.name


# ---- what TensorFlow wrote -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_of_tensorflow(suffix: str) -> None:
    found = read_checkpoint(f"{REAL}{suffix}")
    expected = load_seeded(rr.create_network("srn-lstm", width=1), gain=0.8).state_dict()
    assert (found.source.format, found.source.key) == ("tensorflow", "g_net")
    assert found.source.path == REAL.with_name("srn-miniature.index")
    assert sorted(found.tensors) == sorted(expected)  # no Adam, no counters
    assert b"Adam" in REAL.with_name("srn-miniature.index").read_bytes()
    for name, tensor in expected.items():
        assert torch.equal(found.tensors[name], tensor), name
        assert found.tensors[name].is_contiguous()


def test_loads_and_is_saved_in_our_names(tmp_path: Path) -> None:
    net = rr.load_network(REAL)
    rr.save_network(net, tmp_path / "srn.safetensors")
    again = rr.load_network(tmp_path / "srn.safetensors")
    assert again.checkpoint is not None
    assert net.checkpoint is not None
    assert again.checkpoint.sha256 == net.checkpoint.sha256


def test_names_with_dots_and_a_relative_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(tmp_path / "deblur.model-523000", {"a": VALUES})
    monkeypatch.chdir(tmp_path)
    assert read_checkpoint("deblur.model-523000").tensors["a"].tolist() == VALUES.tolist()


# ---- what the format allows ----------------------------------------------------------------------


@pytest.mark.parametrize("snappy", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("pairs_a_block", [1, 4, 100])
def test_tables(tmp_path: Path, snappy: bool, shards: int, pairs_a_block: int) -> None:
    rng = np.random.default_rng(0)
    tensors = {f"net/layer{n}/v": rng.random((n, 3), np.float32) for n in range(40)}
    prefix = files.write(
        tmp_path / "ckpt", tensors, shards=shards, snappy=snappy, pairs_a_block=pairs_a_block
    )
    found = read_checkpoint(prefix).tensors
    assert len(found) == 40
    for name, array in tensors.items():
        assert found[name.removeprefix("net/").replace("/", ".")].numpy().tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8"])
def test_dtypes(tmp_path: Path, dtype: str) -> None:
    array = np.array([[1, 2, 250]]).astype(dtype)
    found = read_checkpoint(files.write(tmp_path / "c", {"a": array, "b/c": array})).tensors["a"]
    floating = np.issubdtype(array.dtype, np.floating)
    assert found.dtype == (torch.float32 if floating else torch.from_numpy(array).dtype)
    assert found.tolist() == array.tolist()


def test_booleans_and_bfloat16(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.25, 3e20], dtype=torch.bfloat16)
    content = values.view(torch.uint8).numpy().tobytes()
    flags = b"\x00\x01\x02"
    pairs = [
        (b"", files.header()),
        (b"bf", files.record([3], 0, 6, files.masked(content), dtype=14)),
        (b"flag", files.record([3], 6, 3, files.masked(flags), dtype=10)),
    ]
    files.write_raw(tmp_path / "c", files.table(pairs), [content + flags])
    found = read_checkpoint(tmp_path / "c").tensors
    assert torch.equal(found["bf"], values.float())
    assert found["flag"].tolist() == [False, True, True]


def test_names_and_layouts(tmp_path: Path) -> None:
    conv = np.random.default_rng(0).random((5, 4, 3, 2), np.float32)
    dense = np.random.default_rng(1).random((6, 2), np.float32)
    scalar = np.float32(0.25).reshape(())
    tensors = {
        "g/conv/weights": conv,
        "g/conv/biases": VALUES[0, 0],
        "g/conv/weights/Adam": conv,
        "g/conv/weights/Adam_1": conv,
        "g/conv/weights/ExponentialMovingAverage": conv,
        "g/dense/kernel": dense,
        "g/norm/gamma": VALUES[0, 0],
        "g/slope": scalar,
        "beta1_power": scalar,
        "train/beta2_power": scalar,
        "global_step": np.array(7),
        "Variable": np.array(7, np.int32),
    }
    found = read_checkpoint(files.write(tmp_path / "c", tensors))
    assert found.source.key == "g"
    assert set(found.tensors) == {
        "conv.weight", "conv.bias", "dense.weight", "norm.gamma", "slope"
    }  # fmt: skip
    # Output o, input i, row y, column x.
    assert found.tensors["conv.weight"][1, 2, 4, 3] == conv[4, 3, 2, 1]
    assert found.tensors["dense.weight"][1, 5] == dense[5, 1]
    assert found.tensors["slope"].item() == 0.25


def test_object_graphs_of_strings_are_passed_over(tmp_path: Path) -> None:
    pairs = [
        (b"", files.header()),
        (b"_CHECKPOINTABLE_OBJECT_GRAPH", files.record([], 0, 9, 1, dtype=7)),
        (b"v", files.record([2, 3, 4], 0, 96, files.masked(VALUES.tobytes()))),
    ]
    files.write_raw(tmp_path / "c", files.table(pairs), [VALUES.tobytes()])
    assert list(read_checkpoint(tmp_path / "c").tensors) == ["v"]


# ---- what is missing or something else -----------------------------------------------------------


def test_missing_files(tmp_path: Path) -> None:
    prefix = copied(tmp_path)
    index = tmp_path / f"{REAL.name}.index"
    data = tmp_path / f"{REAL.name}.data-00000-of-00001"
    content = data.read_bytes()
    data.unlink()
    for path in (prefix, index):
        assert f"{data.name} of the TensorFlow checkpoint" in refusal(path)
        assert "is missing; put it beside its .index file" in refusal(path)
    assert "no such file" in refusal(tmp_path / "another")
    index.unlink()
    assert "no such file" in refusal(prefix)
    assert "no such file" in refusal(index)
    data.write_bytes(content)
    for path in (prefix, data):
        assert f"{index.name}" in refusal(path)
        assert "missing" in refusal(path)


def test_neighbours_of_a_checkpoint(tmp_path: Path) -> None:
    prefix = copied(tmp_path)
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "/home/them/{REAL.name}"\nall_model_checkpoint_paths: "x"\n'
    )
    assert f"name the one in it, {prefix}" in refusal(tmp_path / "checkpoint")
    meta = tmp_path / f"{REAL.name}.meta"
    meta.write_bytes(b"\x0a\x05graph")
    assert f"not its weights; name {prefix}" in refusal(meta)
    renamed = tmp_path / "weights.bin"
    (tmp_path / f"{REAL.name}.index").rename(renamed)
    assert "the index of a TensorFlow checkpoint under another name" in refusal(renamed)


def test_version_1(tmp_path: Path) -> None:
    # saved_tensor_slice.proto: the first record is a message of messages.
    pairs = [(b"", files.nested(1, files.nested(1, b"v"))), (b"\x00v", b"\x12\x00")]
    path = tmp_path / "model.ckpt-100"
    path.write_bytes(files.table(pairs))
    assert "version 1, which restorert does not read; restore it in TensorFlow" in refusal(path)


def test_other_files_that_end_in_index(tmp_path: Path) -> None:
    path = tmp_path / "net.index"
    torch.save({"a": torch.ones(2)}, path)
    assert read_checkpoint(path).source.format == "torch-zip"


def test_partitioned_variables(tmp_path: Path) -> None:
    whole = files.number(1, 1) + files.nested(2, files.nested(2, files.number(1, 24)))
    pairs = [
        (b"", files.header()),
        (b"\x00v\x00\x01\x80\x81", files.record([24], 0, 96, CRC)),  # as TensorFlow encodes slices
        (b"v", whole + files.nested(7, b"")),
    ]
    files.write_raw(tmp_path / "c", files.table(pairs), [VALUES.tobytes()])
    assert "'v' is saved in slices" in refusal(tmp_path / "c")


def one_record(folder: Path, value: bytes, data: bytes = VALUES.tobytes()) -> Path:
    files.write_raw(folder / "c", files.table([(b"", files.header()), (b"v", value)]), [data])
    return folder / "c"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (files.record([2, 3, 4], 0, 96, CRC ^ 1), "the checksum of 'v' is wrong"),
        (files.record([2, 3, 5], 0, 96, CRC), "of shape (2, 3, 5) has 96 bytes"),
        (files.record([2, 3, 5], 0, 120, CRC), "larger than the data files"),
        (files.record([2, 3, 4], 8, 96, CRC), "ends beyond the data file's 96 bytes, at 104"),
        (files.record([2, 3, 4], -8, 96, CRC), "negative"),
        (files.record([-2, -3, 4], 0, 96, CRC), "negative"),
        (files.record([2**40, 2**20], 0, 2**62, CRC), "larger than the data files"),
        (files.record([0, 2**62, 2**62], 0, 0, 0), "damaged"),
        (files.record([1] * 9, 0, 4, CRC), "9 dimensions"),
        (files.record([2, 3, 4], 0, 96, CRC, shard=1), "no data file"),
        (files.record([2, 3, 4], 0, 96, CRC, dtype=8), "TensorFlow's type 8"),
        (files.record([2, 3, 4], 0, 96, CRC, extra=files.nested(7, b"")), "saved in slices"),
        (files.number(1, 1) + files.nested(2, files.number(3, 1)), "unknown rank"),
        (files.number(1, 1) + files.number(2, 1), "of shape () has 0 bytes"),
        (files.nested(1, b"x"), "TensorFlow's type 0"),
        (b"\x0a\xff\x01", "no protocol buffer"),
        (b"\x0b", "no protocol buffer"),
        (b"\x08" + b"\xff" * 10, "no protocol buffer"),
    ],
)
def test_hostile_records(tmp_path: Path, value: bytes, said: str) -> None:
    assert said in refusal(one_record(tmp_path, value))


def test_records_that_overlap_cannot_ask_for_more_than_the_file(tmp_path: Path) -> None:
    value = files.record([2, 3, 4], 0, 96, CRC)
    pairs = [(b"", files.header())] + [(f"v{n}".encode(), value) for n in range(10)]
    files.write_raw(tmp_path / "c", files.table(pairs), [VALUES.tobytes()])
    assert "larger than the data files" in refusal(tmp_path / "c")


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([(b"v", files.record([], 0, 4, 0))], "no header"),
        ([(b"", files.header(0))], "0 data files"),
        ([(b"", files.header(10**6))], "1000000 data files"),
        ([(b"", files.header(endianness=1))], "big-endian"),
        ([(b"", files.header()), (b"b", b""), (b"a", b"")], "out of order"),
        ([(b"", files.header()), (b"b", b""), (b"b", b"")], "out of order"),
        ([(b"", files.header()), (b"\xff", b"")], "'?' is of TensorFlow's type 0"),
        ([(b"", files.header()), (b"n" * 257, b"")], "longer than its block"),
        ([(b"", files.header())], "empty"),
        ([], "no header"),
    ],
)
def test_hostile_tables(tmp_path: Path, pairs: list[tuple[bytes, bytes]], said: str) -> None:
    files.write_raw(tmp_path / "c", files.table(pairs), [VALUES.tobytes()])
    assert said in refusal(tmp_path / "c")


def test_two_variables_of_one_name(tmp_path: Path) -> None:
    tensors = {"a/weights": VALUES, "a/kernel": VALUES}
    assert "two variables" in refusal(files.write(tmp_path / "c", tensors))


def test_a_compressed_block_that_states_an_impossible_size(tmp_path: Path) -> None:
    bomb = files.varint(2**31) + b"\x00x"
    stored = bomb + b"\x01"
    stored += files.masked(stored).to_bytes(4, "little")
    handle = files.varint(0) + files.varint(len(bomb))
    index = stored + (handle + handle).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    files.write_raw(tmp_path / "c", index, [b""])
    assert "impossible size" in refusal(tmp_path / "c")


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_every_truncation_is_refused(tmp_path: Path, part: str) -> None:
    prefix = copied(tmp_path)
    path = tmp_path / f"{REAL.name}.{part}"
    content = path.read_bytes()
    for length in range(0, len(content), 7 if part == "index" else 97):
        path.write_bytes(content[:length])
        message = refusal(prefix)
        assert "damaged or truncated TensorFlow checkpoint" in message
        assert "download it again" in message


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
@SETTINGS
@given(data=st.data())
def test_changed_bytes_are_seen(tmp_path: Path, part: str, data: st.DataObject) -> None:
    prefix = copied(tmp_path)
    path = tmp_path / f"{REAL.name}.{part}"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    expected = read_checkpoint(REAL).tensors
    found = read_or_refuse(prefix)
    if found is not None:  # what is not used (the optimizer's numbers, padding) may be anything
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@SETTINGS
@given(data=st.data())
def test_damage_behind_right_checksums(tmp_path: Path, data: st.DataObject) -> None:
    """The parser itself: every block is changed and then given its checksum anew."""
    content = bytearray(
        files.block(
            [
                (b"", files.header()),
                (b"net/a", files.record([2, 3, 4], 0, 96, CRC)),
                (b"net/b", files.record([1], 0, 4, CRC)),
            ]
        )
    )
    for _ in range(data.draw(st.integers(0, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["set", "drop", "insert"]))
        if change == "drop":
            del content[position]
        elif change == "insert":
            content.insert(position, data.draw(st.integers(0, 255)))
        else:
            content[position] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    out, handles = b"", []
    for part in (bytes(content), b""):
        part = part or files.block([(b"z", handles[0])])
        handles.append(files.varint(len(out)) + files.varint(len(part)))
        out += part + b"\0" + files.masked(part + b"\0").to_bytes(4, "little")
    footer = (handles[1] + handles[1]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    files.write_raw(tmp_path / "c", out + footer, [VALUES.tobytes()])
    found = read_or_refuse(tmp_path / "c")
    if found is not None:
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


@SETTINGS
@given(content=st.binary(max_size=200))
def test_random_tables(tmp_path: Path, content: bytes) -> None:
    files.write_raw(tmp_path / "c", content + bytes.fromhex("57fb808b247547db"), [b""])
    refusal(tmp_path / "c")

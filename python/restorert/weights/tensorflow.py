"""Reads TensorFlow V2 checkpoints without TensorFlow.

A checkpoint with the prefix ``deblur.model-523000`` is a set of files: ``<prefix>.index``, a
LevelDB table of records that locate each tensor, and one or more ``<prefix>.data-00000-of-00001``
with their bytes (tensorflow/core/util/tensor_bundle, tensorflow/core/lib/io/table). Every length
is checked against the space it must fit in, and all data that is used against its CRC-32C.

It is one file because its parts are the layers of one format, of no use by themselves.
"""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from torch import Tensor

from restorert.errors import CheckpointError, printable

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48  # two block handles, zeros, and the magic number
_TRAILER = 5  # after each block: its compression and its checksum
# Snappy's longest copy: 64 bytes for 3.
_LARGEST_GROWTH = 32
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 256
_LARGEST_INDEX = 1 << 24  # hundreds of thousands of variables
_DATA_FILE = re.compile(r"\.data-\d{5}-of-\d{5}$")
_AGAIN = "download it again"

# tensorflow/core/framework/types.proto. Bfloat16 is read as integers, because numpy lacks it.
_DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "u1",
    14: "<i2",
    19: "<f2",
}
_BOOL = 10
_BFLOAT16 = 14
_STRING = 7

# Variables of optimizers and training loops, in any scope.
_TRAINING = {"beta1_power", "beta2_power", "global_step", "save_counter", "learning_rate"}


# What is read of tensorflow/core/protobuf/tensor_bundle.proto and framework/tensor_shape.proto;
# enumerations are their numbers here, and slices their bytes.
_PROTO = """
name: "restorert/tensor_bundle.proto"
message_type { name: "Header"
  field { name: "num_shards" number: 1 type: TYPE_INT32 }
  field { name: "endianness" number: 2 type: TYPE_INT32 } }
message_type { name: "Dim" field { name: "size" number: 1 type: TYPE_INT64 } }
message_type { name: "Shape"
  field { name: "dim" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".Dim" }
  field { name: "unknown_rank" number: 3 type: TYPE_BOOL } }
message_type { name: "Entry"
  field { name: "dtype" number: 1 type: TYPE_INT32 }
  field { name: "shape" number: 2 type: TYPE_MESSAGE type_name: ".Shape" }
  field { name: "shard_id" number: 3 type: TYPE_INT32 }
  field { name: "offset" number: 4 type: TYPE_INT64 }
  field { name: "size" number: 5 type: TYPE_INT64 }
  field { name: "crc32c" number: 6 type: TYPE_FIXED32 }
  field { name: "slices" number: 7 label: LABEL_REPEATED type: TYPE_BYTES } }
"""
_POOL = descriptor_pool.DescriptorPool()  # not the default one, where TensorFlow's own may be
_POOL.AddSerializedFile(
    text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()).SerializeToString()
)
_Entries = Mapping[str, Any]
"""Location of each tensor: name -> the message Entry."""


class _DamagedError(Exception):
    """The file has bytes that are not valid; the message says what is wrong."""


def tensorflow_prefix(path: Path) -> Path | None:
    """The prefix of the TensorFlow checkpoint at ``path``, or None if there is none.

    Args:
        path: a prefix, which is not itself a file, or its ``.index`` or a ``.data-...`` file.

    Raises:
        CheckpointError: ``path`` belongs to a TensorFlow checkpoint that cannot be read: one of
            version 1, a renamed ``.index``, a graph, a list of checkpoints, or a missing index.
    """
    try:
        return _prefix(path)
    except OSError:
        return None  # reading the file will report it


def _prefix(path: Path) -> Path | None:
    if _DATA_FILE.search(path.name):
        prefix = path.with_name(_DATA_FILE.sub("", path.name))
        if not _with_suffix(prefix, ".index").is_file():
            raise CheckpointError(
                f"{path} is the data of a TensorFlow checkpoint whose {prefix.name}.index is "
                "missing; put both into one folder"
            )
        return prefix
    if not path.exists():
        if not path.name:
            return None
        if _with_suffix(path, ".index").is_file():
            return path
        if _has_data(path):
            raise CheckpointError(
                f"{path.name}.index of the TensorFlow checkpoint {path} is missing; put it beside "
                "its .data file"
            )
        return None
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(256)
        file.seek(max(path.stat().st_size - len(_MAGIC), 0))
        is_table = file.read() == _MAGIC
    listed = re.match(rb'model_checkpoint_path: "([^"\n]{1,200})"', head)
    if listed:
        name = Path(printable(listed[1].decode(errors="replace"))).name
        raise CheckpointError(
            f"{path} is TensorFlow's list of checkpoints; name the one in it, {path.parent / name}"
        )
    if path.suffix == ".meta" and _with_suffix(path.with_suffix(""), ".index").is_file():
        raise CheckpointError(
            f"{path} is the graph of a TensorFlow checkpoint, not its weights; name "
            f"{path.with_suffix('')}"
        )
    if path.suffix == ".index" and (is_table or _has_data(path.with_suffix(""))):
        return path.with_suffix("")
    if is_table:
        raise CheckpointError(_table_of_another_name(path))
    return None


def _has_data(prefix: Path) -> bool:
    return any(
        _DATA_FILE.search(p.name) for p in prefix.parent.glob(f"{glob.escape(prefix.name)}.*")
    )


def read_tensorflow(prefix: Path) -> tuple[dict[str, Tensor], str]:
    """The variables of a TensorFlow checkpoint, with PyTorch's names and layouts.

    Scopes are joined by dots, ``weights`` and ``kernel`` become ``weight``, ``biases`` becomes
    ``bias``; a scope that all variables share is dropped. Weights are permuted from HWIO to OIHW
    (those of transposed convolutions from HWOI to IOHW, the same permutation), matrices to
    [out, in]. Training state is left out: everything below a variable's own name (Adam's moments,
    moving averages), powers of beta, and counters.

    Args:
        prefix: from `tensorflow_prefix`.

    Returns:
        (tensors, the scope that was dropped or "").

    Raises:
        CheckpointError: a file is missing or damaged, or a variable has an unsupported type.
    """
    index = _with_suffix(prefix, ".index")
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise _DamagedError("the index is too large")
        shards, entries = _index(index.read_bytes())
        tensors = _tensors(prefix, shards, _variables(entries))
    except _DamagedError as error:
        raise CheckpointError(
            f"{index}: damaged or truncated TensorFlow checkpoint "
            f"({printable(str(error))[:200]}); {_AGAIN}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise CheckpointError(f"{index}: not enough memory to read this checkpoint") from None
    if not tensors:
        raise CheckpointError(f"{index} is an empty TensorFlow checkpoint: it holds no variables")
    scopes = {name.split("/")[0] + "/" if "/" in name else "" for name in tensors}
    scope = scopes.pop() if len(scopes) == 1 else ""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = _our_name(name[len(scope) :])
        if ours in renamed:
            raise CheckpointError(f"{index}: two variables are called {printable(ours)[:100]}")
        if ours.split(".")[-1] == "weight" and tensor.ndim in (2, 4):
            tensor = tensor.permute((1, 0) if tensor.ndim == 2 else (3, 2, 0, 1))
        renamed[ours] = tensor.contiguous()
    return renamed, scope.rstrip("/")


def _with_suffix(prefix: Path, suffix: str) -> Path:
    # Path.with_suffix would remove ".model-523000" from "deblur.model-523000".
    return prefix.with_name(prefix.name + suffix)


def _table_of_another_name(path: Path) -> str:
    """The message for a table whose name does not end in .index: version 1, or renamed."""
    version_1 = False
    with contextlib.suppress(_DamagedError, StopIteration):
        # The first record is the header: a message in version 1, a number in version 2.
        version_1 = next(_table(path.read_bytes()))[1][:1] == b"\x0a"
    if version_1:
        return (
            f"{path} is a TensorFlow checkpoint of version 1, which restorert does not read; "
            "restore it in TensorFlow and write it with tf.train.Saver(), whose version is 2"
        )
    return (
        f"{path} is the index of a TensorFlow checkpoint under another name; give it its name "
        "back, that of the .data file with .index at the end"
    )


# ---- names and layouts ---------------------------------------------------------------------------


def _variables(entries: _Entries) -> dict[str, Any]:
    """``entries`` without the training state."""

    def trains(name: str) -> bool:
        parts = name.split("/")
        below = any("/".join(parts[:end]) in entries for end in range(1, len(parts)))
        counter = not entries[name].shape.dim and entries[name].dtype in (3, 9)  # unnamed steps
        return below or counter or parts[-1] in _TRAINING or entries[name].dtype == _STRING

    return {name: entry for name, entry in entries.items() if not trains(name)}


def _our_name(name: str) -> str:
    *scopes, last = name.split("/")
    last = {"weights": "weight", "kernel": "weight", "biases": "bias"}.get(last, last)
    return ".".join([*scopes, last])


# ---- the data files ------------------------------------------------------------------------------


def _tensors(prefix: Path, shards: int, entries: _Entries) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    maps: dict[int, np.ndarray] = {}
    for name, entry in entries.items():
        if entry.slices:
            raise CheckpointError(
                f"{prefix}: {printable(name)[:100]!r} is saved in slices, which restorert does not "
                "read; save it without a partitioner"
            )
        if entry.dtype not in _DTYPES:
            raise CheckpointError(
                f"{prefix}: {printable(name)[:100]!r} is of TensorFlow's type {entry.dtype}, which "
                "restorert does not read; convert it to float32"
            )
        if entry.shard_id not in maps:
            maps[entry.shard_id] = _mapped(prefix, entry.shard_id, shards)
    # Records may overlap, so a small pair of files could request any amount of memory.
    room = sum(len(mapped) for mapped in maps.values())
    if sum(entry.size for entry in entries.values()) > room:
        raise _DamagedError("the tensors are larger than the data files")
    for name, entry in entries.items():
        dtype, shape = np.dtype(_DTYPES[entry.dtype]), _shape(entry)
        if len(shape) > _MOST_DIMENSIONS:
            raise _DamagedError(f"{name!r} has {len(shape)} dimensions")
        if prod(shape) * dtype.itemsize != entry.size:
            raise _DamagedError(f"{name!r} of shape {shape} has {entry.size} bytes")
        data = maps[entry.shard_id]
        if entry.offset > len(data) or entry.size > len(data) - entry.offset:
            raise _DamagedError(
                f"{name!r} ends beyond the data file's {len(data)} bytes, at "
                f"{entry.offset + entry.size}"
            )
        content = np.array(data[entry.offset : entry.offset + entry.size])
        if _checksum(content.tobytes()) != entry.crc32c:
            raise _DamagedError(f"the checksum of {name!r} is wrong")
        try:
            tensor = torch.from_numpy(content.view(dtype)).reshape(shape)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise _DamagedError(f"{name!r} of shape {shape}: {error}") from None
        if entry.dtype == _BFLOAT16:
            tensor = tensor.view(torch.bfloat16)
        tensors[name] = tensor.bool() if entry.dtype == _BOOL else tensor
    return tensors


def _mapped(prefix: Path, shard: int, shards: int) -> np.ndarray:
    path = _with_suffix(prefix, f".data-{shard:05d}-of-{shards:05d}")
    try:
        if not path.stat().st_size:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name} of the TensorFlow checkpoint {prefix} is missing; put it beside its "
            ".index file"
        ) from None


# ---- the index: a table of protocol buffers ------------------------------------------------------


def _index(content: bytes) -> tuple[int, dict[str, Any]]:
    """(number of data files, records by name)."""
    records = _table(content)
    name, header = next(records, (b"?", b""))
    if name:
        raise _DamagedError("the index has no header")
    fields = _message("Header", header)
    shards = fields.num_shards
    if fields.endianness:
        raise CheckpointError("big-endian TensorFlow checkpoints are not read; save it again")
    if not 1 <= shards <= 99_999:
        raise _DamagedError(f"it states {shards} data files")
    # Names of slices are not text; the record of their variable is rejected anyway.
    return shards, {
        key.decode(errors="surrogateescape"): _entry(value, shards) for key, value in records
    }


def _entry(record: bytes, shards: int) -> Any:
    entry = _message("Entry", record)
    if entry.shape.unknown_rank:
        raise _DamagedError("a tensor of unknown rank")
    if min(entry.offset, entry.size, *_shape(entry), 0) < 0 or not 0 <= entry.shard_id < shards:
        raise _DamagedError("a record states a negative size or no data file")
    return entry


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(dimension.size for dimension in entry.shape.dim)


def _message(kind: str, data: bytes) -> Any:
    found = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(kind))
    try:
        return found.FromString(data)
    except DecodeError:
        raise _DamagedError("a record that is no protocol buffer") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode the base-128 number at ``at``: (the number, the position after it)."""
    value = 0
    for position in range(at, min(at + 10, len(data))):
        value |= (data[position] & 0x7F) << 7 * (position - at)
        if data[position] < 0x80:
            if value >= 2**64:
                break
            return value, position + 1
    raise _DamagedError("an unterminated number")


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A LevelDB table's (key, value) pairs, in the order of the keys."""
    if len(content) < _FOOTER or content[-len(_MAGIC) :] != _MAGIC:
        raise _DamagedError(f"{len(content)} bytes without the footer of a table")
    footer = content[-_FOOTER:]
    at = 0
    for _ in range(2):  # offset and size of the metaindex block
        _, at = _varint(footer, at)
    last: bytes | None = None
    read = 0
    for _, handle in _block(content, footer[at:]):
        read += _varint(handle, _varint(handle, 0)[1])[0]
        if read > len(content):  # blocks that overlap
            raise _DamagedError("its blocks are larger than the file")
        for key, value in _block(content, handle):
            if last is not None and key <= last:
                raise _DamagedError("names out of order")
            last = key
            yield key, value


def _checksum(content: bytes) -> int:
    """CRC-32C as LevelDB stores it: rotated, plus a constant."""
    try:
        import google_crc32c
    except ImportError:
        raise CheckpointError(
            "TensorFlow checkpoints need google-crc32c: pip install google-crc32c"
        ) from None
    crc = google_crc32c.value(content)
    return int(((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _block(content: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a block; ``handle`` encodes its offset and size."""
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    if offset + size + _TRAILER > len(content) - _FOOTER:
        raise _DamagedError("a block ends beyond the file")
    stored = content[offset : offset + size + _TRAILER]
    if int.from_bytes(stored[-4:], "little") != _checksum(stored[:-4]):
        raise _DamagedError("the checksum of a block is wrong")
    data = _decompressed(stored[:size], stored[size])
    # The block ends with the offsets of the entries that have complete keys, and their number.
    restarts = int.from_bytes(data[-4:], "little")
    end = len(data) - 4 - 4 * restarts
    if end < 0:
        raise _DamagedError("a block without its restart offsets")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(data, at)
        rest, at = _varint(data, at)
        length, at = _varint(data, at)
        if shared > len(key) or shared + rest > _LONGEST_NAME or rest + length > end - at:
            raise _DamagedError("a name or record is longer than its block")
        key = key[:shared] + data[at : at + rest]
        yield key, data[at + rest : at + rest + length]
        at += rest + length


def _decompressed(data: bytes, compression: int) -> bytes:
    if compression == 0:
        return data
    if compression != 1:
        raise _DamagedError(f"a block of compression {compression}")
    size, _ = _varint(data, 0)
    if size > _LARGEST_GROWTH * len(data):
        raise _DamagedError("a compressed block states an impossible size")
    import imagecodecs  # here, so that nothing else needs the codec

    try:
        return bytes(imagecodecs.snappy_decode(data))
    except Exception as error:
        raise _DamagedError(f"a block's compression: {error}") from None

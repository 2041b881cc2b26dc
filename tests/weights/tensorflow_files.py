"""A writer of TensorFlow's V2 checkpoints for tests: any table, any record, damaged or not.

Written from the formats' descriptions (LevelDB's table_format.md, tensor_bundle.proto), with
checksums bit by bit, so that nothing is shared with the reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


def slow_crc32c(data: bytes) -> int:
    """RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = slow_crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = bytearray()
    value &= 2**64 - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def nested(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + value.to_bytes(4, "little")


def header(shards: int = 1, endianness: int = 0) -> bytes:
    return number(1, shards) + (number(2, 1) if endianness else b"") + nested(3, number(1, 1))


def record(
    shape: Sequence[int],
    offset: int,
    size: int,
    crc: int,
    dtype: int = 1,
    shard: int = 0,
    extra: bytes = b"",
) -> bytes:
    dimensions = b"".join(nested(2, number(1, n)) for n in shape)
    place = (number(3, shard) if shard else b"") + (number(4, offset) if offset else b"")
    return (
        number(1, dtype) + nested(2, dimensions) + place + number(5, size) + fixed32(6, crc) + extra
    )


def block(pairs: Sequence[tuple[bytes, bytes]], restart_every: int = 16) -> bytes:
    out, restarts, last = b"", [], b""
    for position, (key, value) in enumerate(pairs):
        shared = 0
        if position % restart_every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    restarts = restarts or [0]
    return b"".join([out, *(n.to_bytes(4, "little") for n in [*restarts, len(restarts)])])


def table(
    pairs: Sequence[tuple[bytes, bytes]], *, pairs_a_block: int = 3, snappy: bool = False
) -> bytes:
    out, index = b"", []

    def add(content: bytes, compress: bool) -> bytes:
        nonlocal out
        stored = imagecodecs.snappy_encode(content) if compress else content
        handle = varint(len(out)) + varint(len(stored))
        kind = bytes([compress])
        out += stored + kind + masked(stored + kind).to_bytes(4, "little")
        return handle

    for start in range(0, len(pairs), pairs_a_block):
        part = pairs[start : start + pairs_a_block]
        index.append((part[-1][0], add(block(part), snappy)))
    handles = add(block([]), False) + add(block(index, restart_every=1), snappy)
    return out + handles.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def write(
    prefix: Path, tensors: Mapping[str, np.ndarray], *, shards: int = 1, **options: object
) -> Path:
    """The index and data files of ``tensors``, dealt to the data files in turn."""
    data = [bytearray() for _ in range(shards)]
    pairs = [(b"", header(shards))]
    for position, name in enumerate(sorted(tensors, key=str.encode)):
        array = tensors[name]
        shard = position % shards
        content = array.tobytes()
        pairs.append(
            (
                name.encode(),
                record(
                    array.shape,
                    len(data[shard]),
                    len(content),
                    masked(content),
                    DTYPES[str(array.dtype)],
                    shard,
                ),
            )
        )
        data[shard] += content
    write_raw(prefix, table(pairs, **options), data)  # type: ignore[arg-type]
    return prefix


def write_raw(prefix: Path, index: bytes, data: Sequence[bytes | bytearray]) -> None:
    prefix.with_name(prefix.name + ".index").write_bytes(index)
    for shard, content in enumerate(data):
        name = f"{prefix.name}.data-{shard:05d}-of-{len(data):05d}"
        prefix.with_name(name).write_bytes(content)

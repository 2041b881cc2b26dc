"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), which TensorFlow's files are checked with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # bit-reversed
_ALL = 0xFFFFFFFF
# Rows that are worked on at once, and the bytes of each: see _raw.
_ROWS = 1 << 12
_SHORTEST = 1 << 14

Array = NDArray[Any]


def _table() -> Array:
    """What each value of the lowest byte becomes after eight steps of the shift register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


_TABLE = _table()
_LIST: list[int] = _TABLE.tolist()


def crc32c(data: bytes | memoryview | Array) -> int:
    """The checksum of ``data`` (bytes, or an array of uint8); 30 MB take 0.3 s."""
    array = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    whole = len(array) // _ROWS * _ROWS if len(array) >= _SHORTEST else 0
    crc = _ALL
    if whole:
        # A register is linear in its start and in the data, and zeros only move it on.
        crc = int(_after_zeros(np.array([crc], np.uint32), whole)[0]) ^ _raw(array[:whole])
    for byte in array[whole:].tolist():
        crc = _LIST[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ _ALL


def unmasked(stored: int) -> int:
    """The checksum behind a stored one: LevelDB rotates checksums and adds a constant to them."""
    rotated = (stored - 0xA282EAD8) & _ALL
    return ((rotated >> 17) | (rotated << 15)) & _ALL


def _raw(data: Array) -> int:
    """The register after ``data`` from zero: numpy walks down many rows side by side."""
    columns = np.ascontiguousarray(data.reshape(_ROWS, -1).T)
    crcs = np.zeros(_ROWS, np.uint32)
    for column in columns:
        crcs = _TABLE[(crcs ^ column) & 0xFF] ^ (crcs >> 8)
    # Neighbours are joined pair by pair: the left one is moved on by the right one's length.
    length = len(columns)
    while len(crcs) > 1:
        crcs = _after_zeros(crcs[::2], length) ^ crcs[1::2]
        length *= 2
    return int(crcs[0])


def _after_zeros(crcs: Array, count: int) -> Array:
    """The registers after ``count`` bytes of zero."""
    power = 0
    while count:
        if count & 1:
            crcs = _applied(_zeros_operator(power), crcs)
        count >>= 1
        power += 1
    return crcs


@lru_cache(maxsize=64)
def _zeros_operator(power: int) -> Array:
    """What ``2 ** power`` bytes of zero do to each of the register's 32 bits."""
    if power == 0:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _TABLE[bits & 0xFF] ^ (bits >> 8)
    half = _zeros_operator(power - 1)
    return _applied(half, half)


def _applied(operator: Array, registers: Array) -> Array:
    result = np.zeros_like(registers)
    for bit in range(32):
        result ^= operator[bit] * ((registers >> np.uint32(bit)) & np.uint32(1))
    return result

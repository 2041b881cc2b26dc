"""ONNX files: writing them, and reading the metadata that the exporter recorded."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorert.errors import Cure, InputError
from restorert.files import sha256_of, writing
from restorert.networks import list_networks, network_spec
from restorert.spec import NetworkConfig, NetworkSpec

if TYPE_CHECKING:
    import onnx

_METADATA_KEY = "restorert"


def write_model(model: onnx.ModelProto, target: Path) -> None:
    """Check a model and write it; equal models give equal bytes.

    Raises:
        InputError: ``target`` cannot be written; an existing file is untouched.
    """
    import onnx

    onnx.checker.check_model(model)
    with writing(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An exported ONNX file, read once.

    Attributes:
        path: the file.
        sha256: of its bytes, in hex.
        metadata: see `read_metadata`.
    """

    path: Path
    sha256: str
    metadata: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> OnnxFile:
        """Hash a file and read its metadata.

        Raises:
            InputError: as `read_metadata`.
        """
        model = _load(path)
        return cls(Path(path), sha256_of(path), _metadata_of(model, path))


def set_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Record metadata for `read_metadata`; replaces existing keys and keeps the others."""
    entries = [entry for entry in model.metadata_props if entry.key == _METADATA_KEY]
    entry = entries[0] if entries else model.metadata_props.add(key=_METADATA_KEY, value="{}")
    entry.value = json.dumps({**json.loads(entry.value), **metadata}, sort_keys=True)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The exporter's metadata: network, precision, size multiple, padding mode and so on.

    Raises:
        InputError: the file cannot be read, or is not an ONNX file from `export_onnx`.
    """
    return _metadata_of(_load(path), path)


def _metadata_of(model: onnx.ModelProto, path: str | os.PathLike[str]) -> dict[str, Any]:
    for entry in model.metadata_props:
        if entry.key == _METADATA_KEY:
            try:
                metadata = json.loads(entry.value)
            except (ValueError, RecursionError):
                metadata = None
            if not isinstance(metadata, dict):
                raise InputError(f"{os.fspath(path)}: its record of the network is damaged")
            return metadata
    raise InputError(f"{os.fspath(path)} was not exported by restorert", Cure.EXPORT)


@dataclasses.dataclass(frozen=True)
class _RecordedSizes(NetworkConfig):
    """The sizes recorded in a file, which can differ from those of the published variant."""

    out_channels: int = 3
    size_multiple: int = 1


def spec_of(metadata: dict[str, Any]) -> NetworkSpec:
    """The spec of the network that an ONNX file or an engine was made from.

    Raises:
        InputError: a value is missing or not valid.
    """
    sizes = ("in_channels", "out_channels", "size_multiple")
    for name in ("network", *sizes, "tile", "padding_mode"):
        value = metadata.get(name)
        counts = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
        if not {
            "network": isinstance(value, str) and value in list_networks(),
            "tile": counts or (value is None and name in metadata),
            "padding_mode": value in ("reflect", "edge"),
        }.get(name, counts):
            raise InputError(f"the file's record of its network is damaged: {name!r}")
    return dataclasses.replace(
        network_spec(metadata["network"]),
        tile=metadata["tile"],
        padding_mode=metadata["padding_mode"],
        config=_RecordedSizes(**{name: metadata[name] for name in sizes}),
    )


def _load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        # By default the format would follow from the suffix.
        model = onnx.load(os.fspath(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise InputError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    except DecodeError:
        raise InputError(f"{os.fspath(path)} is not an ONNX file") from None
    if not model.HasField("graph"):  # an empty file is a valid message
        empty = "is empty" if Path(path).stat().st_size == 0 else "is not an ONNX file"
        raise InputError(f"{os.fspath(path)} {empty}", Cure.EXPORT)
    return model


def inline_functions(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write a copy of the file with every local function replaced by its body.

    OpenVINO 2026.4 does not read local functions.

    Raises:
        InputError: ``path`` is not a readable ONNX file, or ``target`` cannot be written.
    """
    import onnx.inliner

    model = onnx.inliner.inline_local_functions(_load(path))
    with writing(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return Path(target)

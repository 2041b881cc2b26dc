"""Reads checkpoint files without executing anything in them."""

from __future__ import annotations

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from restorert.errors import CheckpointError, reason_of
from restorert.networks.module import CheckpointSource, Format
from restorert.weights.tensorflow import read_tensorflow, tensorflow_prefix

# Keys under which authors put the state dict, in order of preference: if there is a moving average,
# the published figures are measured with it (BasicSR's `params_ema` beside `params`).
WRAPPERS = (
    "params_ema",
    "state_dict_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
)

# Prefixes that wrappers of the module add to every tensor's name; "net." is a common attribute name
# for the network in Lightning modules.
PREFIXES = ("module.", "_orig_mod.", "net.")

_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_UNPACK = "unpack it first"
_LOOK = "check what was downloaded"
# Other files that users pass as checkpoints: offset, bytes, name of the format, what to do.
_OTHER_FILES = (
    (0, b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` to get the file"),
    (0, b"\x89PNG\r\n", "a PNG picture", _LOOK),
    (0, b"\xff\xd8\xff", "a JPEG picture", _LOOK),
    (0, b"GIF8", "a GIF picture", _LOOK),
    (8, b"WEBP", "a WebP picture", _LOOK),
    (0, b"II*\x00", "a TIFF picture", _LOOK),
    (0, b"MM\x00*", "a TIFF picture", _LOOK),
    (0, b"BM", "a BMP picture", _LOOK),
    (0, b"%PDF", "a PDF document", _LOOK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _LOOK),
    (0, b"\x89HDF", "an HDF5 file", "save the tensors with torch.save or as safetensors"),
)


@dataclass(frozen=True)
class Checkpoint:
    """A state dict with canonical names, on the CPU, with floating-point tensors in float32."""

    tensors: Mapping[str, Tensor]
    source: CheckpointSource


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file; nothing in it is ever executed.

    PyTorch's zip and legacy formats and safetensors are recognised by content, whatever the suffix.
    The state dict may be at the top level or under one of `WRAPPERS`, of which the first present is
    used: ``params_ema`` before ``params``. The prefixes of data-parallel, compiled and Lightning
    modules (``module.``, ``_orig_mod.``, ``net.``) are removed if every name has them.

    A TensorFlow V2 checkpoint is several files with a common prefix; ``path`` is that prefix
    (``checkpoints/color/deblur.model-523000``), or its ``.index`` or ``.data-...`` file. Names and
    layouts become PyTorch's, and optimizer state is dropped: see `read_tensorflow`.

    Args:
        path: the file, or a TensorFlow checkpoint's prefix.

    Returns:
        The tensors, contiguous, on the CPU: floating-point ones in float32 (fp16 and bf16 widened
        exactly, float64 rounded), integers and booleans as they are.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, has no state dict, or would
            run code when unpickled; the message says what was found and what to do.
    """
    path = Path(path)
    prefix = tensorflow_prefix(path)
    if prefix is not None:
        variables, scope = read_tensorflow(prefix)
        index = prefix.with_name(f"{prefix.name}.index").absolute()
        source = CheckpointSource(index, "tensorflow", scope)
        return Checkpoint(_canonical(path, variables), source)
    kind = _recognise(path)
    try:
        if kind == "safetensors":
            with safe_open(path, framework="pt", device="cpu") as opened:
                metadata = dict(opened.metadata() or {})
                content: Any = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        else:
            metadata = {}
            # Pass the open file: given a path, torch.load would go by its suffix.
            with warnings.catch_warnings(), open(path, "rb") as file:
                warnings.simplefilter("ignore")  # torch notes unusual pickle protocols; harmless
                content = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: damaged or truncated safetensors file ({reason_of(error)}); download it again"
        ) from None
    except MemoryError:
        raise CheckpointError(f"{path}: not enough memory to read this checkpoint") from None
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        raise CheckpointError(_load_failure(path, error)) from None
    state_dict, key = _unwrap(path, content)
    source = CheckpointSource(path.absolute(), kind, key, metadata)
    return Checkpoint(_canonical(path, state_dict), source)


def _recognise(path: Path) -> Format:
    """The file's format, from its first bytes and, for a zip archive, its list of contents."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; name the checkpoint file in it")
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CheckpointError(f"{path}: cannot be read ({reason_of(error)})") from None

    if not head:
        raise CheckpointError(f"{path} is an empty file: the download failed, download it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        raise CheckpointError(
            f"{path} is an HTML page: the download failed (a login or quota page was saved in the "
            "checkpoint's place); download it again in a browser"
        )
    for offset, magic, what, cure in _OTHER_FILES:
        if head[offset : offset + len(magic)] == magic:
            raise CheckpointError(f"{path} is {what}, not a checkpoint; {cure}")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
        return "torch-zip"
    if head.startswith(_TORCH_LEGACY):
        return "torch-legacy"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{":
        if header > size - 8:
            raise CheckpointError(
                f"{path}: truncated safetensors file ({size} bytes, the header alone needs "
                f"{header + 8}); download it again"
            )
        return "safetensors"
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:
        refused = _pickled_globals(path)
        raise CheckpointError(
            f"{path} is a plain pickle{f' of {refused}' if refused else ''}, which restorert never "
            "unpickles; save the state dict with torch.save or as safetensors"
        )
    raise CheckpointError(
        f"{path} is neither a PyTorch checkpoint nor a safetensors file: it begins with "
        f"{head[:16]!r}"
    )


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        raise CheckpointError(
            f"{path}: truncated or damaged checkpoint ({size} bytes, a zip archive without its "
            "end); download it again"
        ) from None
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds code; save the module's state_dict() "
            "with torch.save"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        found = ", ".join(names[:3]) or "nothing"
        raise CheckpointError(
            f"{path} is a zip archive but no PyTorch checkpoint (it holds {found}); if the "
            "checkpoint is inside, unpack it first"
        )
    # torch.save does not compress its records, so more bytes than the file has is a zip bomb.
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(
            f"{path}: a zip archive whose records unpack to more than the file's {size} bytes, "
            "which torch.save never writes; save the state dict again with torch.save"
        )


def _pickled_globals(path: Path) -> str:
    """The first class or function named in a plain pickle, read without unpickling; or ""."""
    strings: list[str] = []
    try:
        with open(path, "rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                    return ".".join(strings[-2:])
                if "UNICODE" in opcode.name:
                    strings = [*strings[-1:], str(argument)]
    except Exception:  # damaged, so there is no name to report
        return ""
    return ""


def _load_failure(path: Path, error: Exception) -> str:
    """Condense torch.load's paragraphs into one line."""
    message = str(error)
    refused = re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"([\w.]+) (?:whose module|was not an allowed|from the blocked)", message
    )
    if refused:
        return (
            f"{path} wants to run code when unpickled: {refused[1]} was refused; if you trust its "
            "author, load it there and save net.state_dict() alone"
        )
    if "eights only load failed" in message:
        detail = re.search(r"WeightsUnpickler error:? *([^\n]*)", message)
        reason = detail[1].strip()[:120] if detail else "an object that is not a tensor"
        return (
            f"{path} holds pickled objects that are not tensors ({reason}); save "
            "net.state_dict() alone"
        )
    return f"{path}: damaged or truncated checkpoint ({reason_of(error)}); download it again"


def _unwrap(path: Path, content: Any) -> tuple[Mapping[str, Tensor], str]:
    """The state dict inside ``content``, and the keys that lead to it."""
    keys: list[str] = []
    while True:
        if isinstance(content, Tensor):
            raise CheckpointError(
                f"{path} holds one tensor of shape {tuple(content.shape)}, not a state dict"
            )
        if not isinstance(content, Mapping):
            raise CheckpointError(
                f"{path} holds a {type(content).__name__}, not a state dict; save "
                "net.state_dict() alone"
            )
        if not content:
            raise CheckpointError(f"{path} holds an empty state dict{_under(keys)}")
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
        keys.append(wrapper)

    others = [(name, value) for name, value in content.items() if not isinstance(value, Tensor)]
    if not others:
        names = [name for name in content if not isinstance(name, str)]
        if names:
            raise CheckpointError(f"{path}: a state dict with the name {names[0]!r}, not a string")
        return content, ".".join(keys)
    listed = ", ".join(repr(key) for key in list(content)[:6])
    if any(str(name).startswith(("optimizer", "scheduler")) for name in content):
        raise CheckpointError(
            f"{path} is a training state without weights (it holds {listed}); BasicSR keeps the "
            "weights in the folder models/ beside training_states/"
        )
    for name, value in others:
        nested = value.values() if isinstance(value, Mapping) else ()
        if nested and all(isinstance(tensor, Tensor) for tensor in nested):
            raise CheckpointError(
                f"{path} has tensors{_under(keys)} under the key {name!r}, which restorert does "
                f"not know; save that entry alone (keys known: {', '.join(WRAPPERS)})"
            )
    name, value = others[0]
    if len(others) < len(content):
        raise CheckpointError(
            f"{path}: {name!r}{_under(keys)} is a {type(value).__name__} and not a tensor; save "
            "net.state_dict() alone"
        )
    raise CheckpointError(f"{path} holds no state dict; its keys are {listed}")


def _under(keys: list[str]) -> str:
    return f" under {'.'.join(keys)!r}" if keys else ""


def _canonical(path: Path, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without prefixes; plain, contiguous float32 tensors."""
    if not state_dict:
        raise CheckpointError(f"{path}: holds no tensors; this is not a checkpoint of a network")
    names = list(state_dict)
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        names = [name[len(prefix) :] for name in names]
    tensors: dict[str, Tensor] = {}
    for name, tensor in zip(names, state_dict.values(), strict=True):
        if (
            tensor.layout != torch.strided
            or tensor.is_quantized
            or tensor.is_complex()
            or tensor.device.type != "cpu"
        ):
            raise CheckpointError(
                f"{path}: {name!r} is a {tensor.device.type} {tensor.layout} tensor of "
                f"{tensor.dtype}; restorert reads dense real ones"
            )
        # A view with strides of zero lets a small file ask for terabytes.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path}: {name!r} of shape {tuple(tensor.shape)} is larger than its own data; "
                "save contiguous tensors"
            )
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to(dtype).contiguous()
    return tensors

"""The cache of exported ONNX files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import torch

from restorert.engine.cache import EngineCache
from restorert.export import OnnxFile, export_onnx
from restorert.files import replace_atomically, sha256_of
from restorert.networks import RestorationNetwork
from restorert.quantize import CalibrationCache, Patches, quantize_network
from restorert.version import __version__
from restorert.weights import weights_hash

# The folders whose code affects an exported file; the modules next to them do, too.
_WRITERS = ("export", "networks", "ops", "pictures", "quantize", "weights")


def exporter_sources() -> list[Path]:
    """The modules of the package that affect the content of an exported file."""
    package = Path(__file__).parents[1]
    rooms = [package.glob("*.py"), *((package / room).rglob("*.py") for room in _WRITERS)]
    return sorted(itertools.chain(*rooms))


@functools.cache
def exporter_fingerprint() -> str:
    """Hex SHA-256 over all that affects an exported file: our code and the exporters' versions."""
    versions = (__version__, torch.__version__, onnx.__version__, onnxscript.__version__)
    digest = hashlib.sha256(" ".join(versions).encode())
    for source in exporter_sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def cached_onnx(
    network: RestorationNetwork,
    precision: str,
    cache: EngineCache,
    *,
    weights_sha256: str,
    runner: str,
    deploy: bool = True,
    calibration: CalibrationCache | None = None,
) -> OnnxFile:
    """The network's ONNX file in the cache; exported first if it is missing or damaged.

    Args:
        network: not changed.
        precision: of the file; int8 needs a ``calibration``.
        cache: the cache that holds the file.
        weights_sha256: of the network.
        runner, deploy: see `export_onnx`.
        calibration: see `quantize_network`.
    """
    facts: dict[str, Any] = {
        "weights": weights_sha256,
        "spec": dataclasses.asdict(network.spec),
        "precision": precision,
        "exporter": exporter_fingerprint(),
    }
    if calibration is None:
        form = network.deploy(runner) if deploy else network
        facts["deployed"] = form.deployed
    else:
        facts["deploy"] = deploy
        facts["calibration"] = hashlib.sha256(calibration.to_json().encode()).hexdigest()
    path = cache.path(f"{network.spec.name}-{precision}", facts, ".onnx")
    record = path.with_name(f"{path.name}.json")
    found: list[OnnxFile] = []

    def is_whole(target: Path) -> bool:
        # A damaged file might still parse, but with other weights.
        try:
            noted = json.loads(record.read_bytes())
            found[:] = [OnnxFile(target, noted["sha256"], noted["metadata"])]
            return found[0].sha256 == sha256_of(target)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def export(target: Path) -> None:
        if calibration is None:
            export_onnx(form, target, precision=precision, deploy=False)
        else:
            quantize_network(network, target, calibration=calibration, deploy=deploy)
        found[:] = [OnnxFile.read(target)]
        note = {"sha256": found[0].sha256, "metadata": found[0].metadata}
        with replace_atomically(record) as temporary:
            temporary.write_text(json.dumps(note), encoding="utf-8")

    cache.get_or_build(path, is_whole, export)
    return found[0]


def calibrated_path(
    network: RestorationNetwork,
    patches: Patches,
    *,
    cache: EngineCache | None = None,
    **arguments: Any,
) -> Path:
    """The cache's path for the INT8 file that these arguments of `quantize_network` produce.

    Args:
        network, patches, arguments: as for `quantize_network`, which writes the file.
        cache: None is the user's cache folder.
    """
    facts = {
        "weights": weights_hash(network),
        "pictures": sorted(patches.pictures.values()),
        "patches": [x.shape for x in patches.inputs],
        "conditions": patches.conditions,
        "arguments": arguments,
    }
    cache = cache or EngineCache()
    cache.make()
    return cache.path(f"{network.spec.name}-int8", facts, ".onnx")

"""The JSON file next to each engine, read and checked before the engine is deserialised."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restorert.engine.device import Host, short_version
from restorert.engine.profile import ShapeProfile
from restorert.engine.request import BuildRequest, Built
from restorert.errors import BuildError, Cure, EngineMismatchError, InputError, printable
from restorert.files import sha256_of, writing
from restorert.record import Facts, read_record
from restorert.version import __version__

FORMAT = 1


def sidecar_path(engine: str | os.PathLike[str]) -> Path:
    """``hinet.engine`` -> ``hinet.engine.json``."""
    return Path(f"{os.fspath(engine)}.json")


@dataclass(frozen=True)
class Sidecar:
    """What an engine is and where it may run.

    Attributes:
        network: what the exporter recorded in the ONNX file (name, size multiple, padding, tile;
            the fraction of multiply-accumulates in int8, if any).
        precision: as requested: fp32, fp16, bf16, int8.
        precision_ran: the precision the runner really computes in, such as "bf16" on a CPU.
        runner, runner_version: the library that built the engine and must run it.
        device: name and capability of the device it was built for.
        targets: compute capabilities the file has code for; empty if only for ``device``.
        plugins_sha256: of the plugin library that its plugin layers come from, if any.
        rebuild: the command that builds it again; empty if there is none, because the network's
            weights are not in a file.
        layers: number of layers by output type, in the network given to TensorRT.
        precisions: number of convolutions and matrix products that run in each precision, as
            reported by the finished engine; empty if the builder does not report it.
        weights_from: "random", "file PATH" or "the package"; empty if the weights came in an ONNX
            file or were changed in memory.
        plan: kernels of the engine by kind, as [count, bytes read and written]; bytes are None for
            an engine of several shapes. Empty if the builder does not report it.
    """

    network: Facts
    precision: str
    precision_ran: str
    runner: str
    runner_version: str
    device: dict[str, str]
    profile: ShapeProfile
    options: Facts
    onnx_sha256: str
    weights_sha256: str
    engine_sha256: str
    engine_bytes: int
    rebuild: str
    targets: tuple[str, ...] = ()
    plugins_sha256: str | None = None
    restorert: str = ""
    build_seconds: float = 0.0
    layers: dict[str, int] = field(default_factory=dict)
    plan: dict[str, list[int | None]] = field(default_factory=dict)
    precisions: dict[str, int] = field(default_factory=dict)
    weights_from: str = ""
    format: int = FORMAT

    @classmethod
    def of(
        cls,
        request: BuildRequest,
        built: Built,
        engine: Path,
        host: Host,
        *,
        seconds: float,
        rebuild: str,
    ) -> Sidecar:
        """The sidecar of the finished file ``engine``."""
        return cls(
            network=request.onnx.metadata,
            precision=request.precision,
            runner=host.runner,
            runner_version=host.version,
            device={"name": host.device.name, "capability": host.device.capability},
            profile=request.profile,
            options=request.options.to_json(),
            onnx_sha256=request.onnx.sha256,
            weights_sha256=request.weights_sha256,
            weights_from=request.weights_from,
            engine_sha256=sha256_of(engine),
            engine_bytes=engine.stat().st_size,
            rebuild=rebuild,
            plugins_sha256=host.plugins if built.plugins else None,
            restorert=__version__,
            build_seconds=round(seconds, 3),
            precision_ran=built.precision_ran,
            targets=built.targets,
            layers=built.layers,
            precisions=built.precisions,
            plan=built.plan,
        )

    def to_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {"profile": self.profile.to_json(), "targets": list(self.targets)}

    def summary(self) -> str:
        """Readable summary; has a second line if the precisions of the layers are known."""
        targets = f" for sm {', '.join(self.targets)}" if self.targets else ""
        built = (
            f"{self.network['network']} by {self.runner} {short_version(self.runner_version)}"
            f"{targets}: asked {self.precision}, runs {self.precision_ran}, shapes {self.profile}, "
            f"{self.engine_bytes / 1e6:.0f} MB, built in {self.build_seconds:.1f} s"
        )
        return f"{built}\n{self.precision_shares()}" if self.precisions else built

    def precision_shares(self) -> str:
        """The fraction of layers that run in each precision, in words."""
        total = sum(self.precisions.values())
        ranked = sorted(self.precisions.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in ranked)
        return f"convolutions and matrix products run in {shares}"

    @property
    def cure(self) -> str:
        """What to do if this machine cannot use the engine."""
        return f"rebuild: {self.rebuild}" if self.rebuild else "build it again from its network"

    def write(self, engine: str | os.PathLike[str]) -> None:
        """Write the sidecar next to ``engine``, atomically.

        Raises:
            BuildError: the file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n"
        with writing(sidecar_path(engine), BuildError) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_sidecar(engine: str | os.PathLike[str]) -> Sidecar:
    """Read the sidecar of ``engine``.

    Raises:
        EngineMismatchError: it is missing or damaged. An engine without one is not loaded, because
            deserialising a file of unknown origin can crash the process.
    """
    path = sidecar_path(engine)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        name = os.fspath(engine)
        if Path(engine).is_dir():
            raise EngineMismatchError(f"{name} is a folder; name the engine file in it") from None
        if not Path(engine).exists():
            raise EngineMismatchError(f"{name}: no such file", Cure.BUILD) from None
        raise EngineMismatchError(f"{name} has no sidecar {path.name}", Cure.BUILD) from None
    except OSError as error:
        raise EngineMismatchError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise EngineMismatchError(f"sidecar {path} is not valid JSON", Cure.BUILD) from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise EngineMismatchError(
            f"sidecar {path} has format {printable(repr(found)[:40])}, this version reads {FORMAT}",
            Cure.BUILD,
        )
    profile = {"profile": ShapeProfile.from_json}
    try:
        # A later version may have written further keys.
        values = read_record(Sidecar, raw, converters=profile, ignore=None)
    except InputError as error:
        raise EngineMismatchError(f"sidecar {path}: {error}", Cure.BUILD) from None
    return Sidecar(**{name: _printable(value) for name, value in values.items()})


def _printable(value: Any) -> Any:
    """Error messages quote these texts: remove line breaks and terminal control sequences."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_printable(item) for item in value)
    return value


def check_engine_file(engine: str | os.PathLike[str], sidecar: Sidecar) -> None:
    """Raise EngineMismatchError unless the sidecar belongs to this file."""
    path = Path(engine)
    try:
        size = path.stat().st_size
        whole = size == sidecar.engine_bytes
        same = whole and sha256_of(path) == sidecar.engine_sha256
    except OSError as error:
        raise EngineMismatchError(f"cannot read {path}: {error.strerror or error}") from None
    if not whole:
        raise EngineMismatchError(
            f"{path} has {size} bytes, its sidecar says {sidecar.engine_bytes}: the file is "
            f"truncated or was replaced; {sidecar.cure}"
        )
    if not same:
        raise EngineMismatchError(
            f"{path} is damaged or was replaced (its SHA-256 is not the sidecar's); {sidecar.cure}"
        )


def check_host(engine: str | os.PathLike[str], sidecar: Sidecar, host: Host) -> None:
    """Raise EngineMismatchError unless this machine is the one the engine was built for."""

    def refuse(built: str, here: str) -> None:
        raise EngineMismatchError(
            f"{os.fspath(engine)} was built {built}, this machine has {here}; {sidecar.cure}"
        )

    device = host.device
    here = f"{device.name} ({device.capability})"
    if sidecar.runner != host.runner:
        refuse(f"by {sidecar.runner}", host.runner)
    if sidecar.runner_version != host.version:
        refuse(f"by {host.runner} {sidecar.runner_version}", f"{host.runner} {host.version}")
    if sidecar.targets:
        if device.capability not in sidecar.targets:
            refuse(f"for compute capability {', '.join(sidecar.targets)}", here)
    elif sidecar.device != {"name": device.name, "capability": device.capability}:
        built_for = sidecar.device
        refuse(f"for {built_for.get('name')} ({built_for.get('capability')})", here)
    if sidecar.plugins_sha256 and sidecar.plugins_sha256 != host.plugins:
        refuse("with another plugin library", "another build of it" if host.plugins else "none")

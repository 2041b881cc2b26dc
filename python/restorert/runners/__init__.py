"""Engine file -> engine: build, load and run by one protocol."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from restorert import __version__
from restorert.engine import environment
from restorert.engine.cache import EngineCache
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.engine.sidecar import (
    Sidecar,
    check_engine_file,
    check_environment,
    read_sidecar,
    sidecar_path,
)
from restorert.engine.tensorrt_build import Progress
from restorert.errors import (
    BuildError,
    EngineMismatchError,
    InputError,
    RunnerUnavailableError,
)
from restorert.export import export_onnx, read_metadata
from restorert.export.onnx_export import CALIBRATE, check_engine_precision, check_shape
from restorert.files import check_output, replace_atomically, sha256_of
from restorert.networks import (
    NetworkConfig,
    NetworkSpec,
    RestorationNetwork,
    create_network,
    list_networks,
    network_spec,
)
from restorert.quantize import CalibrationCache, quantize_network, shipped_calibration
from restorert.runners.base import Backend, Runner
from restorert.runners.cuda_runner import CUDARunner, check_cuda
from restorert.runners.engine import Engine
from restorert.runners.openvino_runner import OpenVINOBackend
from restorert.runners.tensorrt_runner import TensorRTBackend
from restorert.runners.torch_runner import TorchRunner
from restorert.weights import shipped_weights, weights_hash

__all__ = [
    "BACKENDS",
    "IN_MEMORY",
    "Backend",
    "CUDARunner",
    "Engine",
    "Runner",
    "TorchRunner",
    "build_engine",
    "build_engine_file",
    "choose_backend",
    "load_engine",
    "runner_names",
]

# Runners with engine files, in the order that runner="auto" tries them; "cuda" stands before the
# first that needs no GPU, and "torch" behind them all.
BACKENDS: tuple[Backend, ...] = (
    TensorRTBackend("tensorrt"),
    TensorRTBackend("tensorrt_rtx"),
    OpenVINOBackend(),
)

# Runners that take the network itself and have no engine files.
IN_MEMORY: dict[str, type[TorchRunner]] = {"cuda": CUDARunner, "torch": TorchRunner}


def runner_names() -> list[str]:
    """What ``runner=`` takes."""
    return ["auto", *(backend.name for backend in BACKENDS), *IN_MEMORY]


def _backend(name: str) -> Backend:
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise InputError(f"unknown runner {name!r}; expected {', '.join(runner_names())}")


def choose_backend(runner: str = "auto", *, to_run: bool = True) -> Backend:
    """The backend that ``runner`` means here.

    Args:
        runner: "auto" takes the first that works; "tensorrt" means the module of that name where
            it is installed, else TensorRT-RTX.
        to_run: False where the engine is only built, for which TensorRT-RTX needs no GPU.

    Raises:
        InputError: unknown name.
        RunnerUnavailableError: it cannot be used here; the message says why.
    """
    if runner in IN_MEMORY:
        raise InputError(f"the {runner} runner runs networks in memory and has no engine files")
    if runner == "auto":
        candidates = list(BACKENDS)
    elif runner == "tensorrt":
        candidates = [_backend("tensorrt"), _backend("tensorrt_rtx")]
    else:
        candidates = [_backend(runner)]
    reasons = []
    for backend in candidates:
        try:
            backend.check_runnable() if to_run else backend.check_buildable()
        except RunnerUnavailableError as error:
            reasons.append(str(error))
        else:
            return backend
    raise RunnerUnavailableError("; ".join(reasons))


@functools.cache
def _exporter_fingerprint() -> str:
    """Changes whenever an exported ONNX file could: our own code and the exporters' versions."""
    digest = hashlib.sha256(f"{__version__} {torch.__version__}".encode())
    for library in ("onnx", "onnxscript"):
        digest.update(f"{library} {__import__(library).__version__}".encode())
    package = Path(__file__).parents[1]
    for folder in ("export", "networks", "ops"):
        for source in sorted((package / folder).glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _cached_onnx(
    network: RestorationNetwork, precision: str, cache: EngineCache, weights: str
) -> Path:
    return _cached_file(
        network,
        precision,
        {"weights": weights, "deployed": network.deployed},
        cache,
        lambda target: export_onnx(network, target, precision=precision, deploy=False),
    )


def _cached_int8(
    network: RestorationNetwork,
    calibration: CalibrationCache,
    cache: EngineCache,
    weights: str,
    deploy: bool,
) -> Path:
    content = json.dumps([calibration.scales, calibration.keep], sort_keys=True)
    return _cached_file(
        network,
        "int8",
        {
            "weights": weights,
            "deploy": deploy,
            "calibration": hashlib.sha256(content.encode()).hexdigest(),
        },
        cache,
        lambda target: quantize_network(network, target, calibration=calibration, deploy=deploy),
    )


def _cached_file(
    network: RestorationNetwork,
    precision: str,
    facts: dict[str, Any],
    cache: EngineCache,
    write: Callable[[Path], object],
) -> Path:
    spec: NetworkSpec = network.spec
    facts = {
        **facts,
        "spec": dataclasses.asdict(spec),
        "precision": precision,
        "exporter": _exporter_fingerprint(),
    }
    path = cache.path(f"{spec.name}-{precision}", facts, ".onnx")
    # A damaged file would still parse, with other weights in it.
    digest = path.with_name(f"{path.name}.sha256")

    def whole(target: Path) -> bool:
        return (
            target.is_file()
            and digest.is_file()
            and digest.read_bytes() == sha256_of(target).encode()
        )

    def export(target: Path) -> None:
        write(target)
        with replace_atomically(digest) as temporary:
            temporary.write_bytes(sha256_of(target).encode())

    return cache.get_or_build(path, whole, export)


def _origin(network: RestorationNetwork | Path, weights: str) -> tuple[list[str], str]:
    """The flags of `restorert build` that name this network, and `Sidecar.weights_from`.

    No flags where none can.
    """
    if isinstance(network, Path):
        return [f"--onnx={network}"], ""
    spec = network.spec
    shipped = shipped_weights().get(spec.name)
    model = f"--model={spec.name}"
    if network.checkpoint:
        path = network.checkpoint.path
        if network.checkpoint.sha256 != weights:  # trained on since it was loaded
            return [], ""
        if path == shipped:
            return [model], "the package"
        return [model, f"--weights={path}"], f"file {path}"
    registered = spec.name in list_networks() and spec == network_spec(spec.name)
    if registered and weights_hash(create_network(spec.name)) == weights:
        # To the command line a name means the shipped weights where there are any.
        return [] if shipped else [model], "random"
    return [], ""


def _rebuild_command(
    origin: list[str],
    precision: str,
    backend: Backend,
    profile: ShapeProfile,
    options: BuilderOptions,
    target: Path | None,
) -> str:
    if not origin:
        return ""
    parts = ["restorert", "build", *origin, f"--precision={precision}", f"--runner={backend.name}"]
    parts += profile.trtexec_flags().split()
    if backend.name != "openvino":  # it has no such options
        parts += options.flags()
    if target is not None:
        parts.append(f"--output={target}")
    return shlex.join(parts)


def build_engine_file(
    network: RestorationNetwork | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    precision: str = "fp32",
    shape: tuple[int, ...] | None = None,
    profile: ShapeProfile | None = None,
    runner: str = "auto",
    options: BuilderOptions | None = None,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    deploy: bool = True,
    to_run: bool = False,
) -> Path:
    """Build an engine file and its sidecar, or find them in the cache.

    Args:
        network: a network, or the path of an ONNX file from `export_onnx` or
            `quantize_network`.
        path: where to write; None keeps the file in the cache and reuses one that is there.
        precision: fp32, fp16, bf16 or int8. An ONNX file brings its own, which must be equal;
            int8 needs such a file, from `quantize_network`, but for the networks whose calibration
            comes with the package (hinet-tiny).
        shape: optimise for this [N, C, H, W]; any smaller size is accepted too.
        profile: instead of ``shape``: the exact smallest, best and largest shapes.
        runner: see `choose_backend`.
        options: for the builder.
        cache: None is the user's own cache folder.
        progress: called with what is being done and the share done.
        deploy: build the network's deploy form, see `RestorationNetwork.deploy`.
        to_run: choose only among runners that can also run here.

    Returns:
        The engine file; its sidecar is beside it.

    Raises:
        RestorertError: InputError, BuildError or RunnerUnavailableError, one line each.
    """
    check_engine_precision(precision)
    calibration = None
    if precision == "int8" and isinstance(network, RestorationNetwork):
        calibration = shipped_calibration(network)
        if calibration is None:
            raise InputError(
                f"an int8 engine is built from a calibrated ONNX file; make it by {CALIBRATE}"
            )
    if shape is not None and profile is not None:
        raise InputError("give a shape or a profile, not both")
    backend = choose_backend(runner, to_run=to_run)
    if isinstance(network, RestorationNetwork):
        source = network.checkpoint.path if network.checkpoint else None
    else:
        source = Path(network)
    if path is not None:
        check_output(path, source)
        check_output(sidecar_path(path), source)
    cache = cache or EngineCache()
    options = options or BuilderOptions()
    if isinstance(network, RestorationNetwork):
        spec: NetworkSpec = network.spec
    else:
        metadata = read_metadata(network)
        spec = spec_of(metadata)
        needed = backend.onnx_precision(precision)
        if metadata.get("precision") != needed:
            cure = (
                f"made by {CALIBRATE}"
                if needed == "int8"
                else f"exported with --precision {needed}"
            )
            raise InputError(
                f"{os.fspath(network)} is {metadata.get('precision')}; an engine of {precision} on "
                f"{backend.name} needs one {cure}"
            )
    if profile is None:
        default = (1, spec.in_channels, 720, 1280)
        profile = ShapeProfile.up_to(shape or default, spec.size_multiple)
    for bound in (profile.min, profile.opt, profile.max):
        check_shape(spec, bound)
    if isinstance(network, RestorationNetwork):
        weights = weights_hash(network)
        if progress:
            progress("exporting to ONNX", 0.0)
        if calibration is not None:
            onnx_path = _cached_int8(network, calibration, cache, weights, deploy)
        else:
            form = network.deploy(backend.name) if deploy else network
            onnx_path = _cached_onnx(form, backend.onnx_precision(precision), cache, weights)
        if progress:
            progress("exporting to ONNX", 1.0)
        metadata = read_metadata(onnx_path)
    else:
        onnx_path, weights = Path(network), ""
    onnx_sha256 = sha256_of(onnx_path)
    plugins_sha256 = environment.plugin_hash() if backend.name == "tensorrt" else None
    device = backend.device()
    facts = {
        "onnx": onnx_sha256,
        "weights": weights,
        "precision": precision,
        "profile": profile.to_json(),
        "options": options.to_json(),
        "runner": backend.name,
        "version": backend.version(),
        "device": device.to_json(),
        "plugins": plugins_sha256,
        "restorert": __version__,
    }
    label = f"{spec.name}-{precision}-{backend.name}"
    target = Path(path) if path is not None else cache.path(label, facts, backend.suffix)

    def build(out: Path) -> None:
        started = time.perf_counter()
        built = backend.build(onnx_path, out, profile, options, precision, progress)
        made_from = network if isinstance(network, RestorationNetwork) else onnx_path
        origin, weights_from = _origin(made_from, weights)
        sidecar = Sidecar(
            network=metadata,
            precision=precision,
            precision_ran=built["precision_ran"],
            runner=backend.name,
            runner_version=backend.version(),
            device={"name": device.name, "capability": device.capability},
            profile=profile,
            options=options.to_json(),
            onnx_sha256=onnx_sha256,
            weights_sha256=weights,
            engine_sha256=sha256_of(out),
            engine_bytes=out.stat().st_size,
            rebuild=_rebuild_command(
                origin if deploy or not origin else [*origin, "--no-deploy"],
                precision,
                backend,
                profile,
                options,
                out if path is not None else None,
            ),
            targets=tuple(built.get("targets", ())),
            plugins_sha256=plugins_sha256 if built.get("plugins") else None,
            restorert=__version__,
            build_seconds=round(time.perf_counter() - started, 3),
            layers=built.get("layers", {}),
            precisions=built.get("precisions", {}),
            weights_from=weights_from,
            plan={k: list(v) for k, v in built["plan"].by_kind().items()}
            if built.get("plan")
            else {},
        )
        try:
            sidecar.write(out)
        except OSError as error:
            raise BuildError(
                f"cannot write {sidecar_path(out)}: {error.strerror or error}"
            ) from None

    if path is None:
        return cache.get_or_build(target, _is_whole, build)
    with cache.locked(
        cache.folder / f"{label}-{hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:20]}"
    ):
        build(target)
    return target


def _is_whole(path: Path) -> bool:
    try:
        check_engine_file(path, read_sidecar(path))
    except EngineMismatchError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class _RecordedSizes(NetworkConfig):
    """What a file tells of its network's config, which need not be its variant's."""

    out_channels: int = 3
    size_multiple: int = 1


def spec_of(metadata: dict[str, Any]) -> NetworkSpec:
    """The spec of the network that an ONNX file or an engine was made from.

    Raises:
        InputError: a value is missing or not what it must be.
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


def load_engine(path: str | os.PathLike[str]) -> Engine:
    """Load an engine file.

    Its sidecar is checked first: file whole, same runner and version, same device, same plugins.

    Raises:
        EngineMismatchError: it was built for something else; the message says what it was and the
            command that builds it again.
        RunnerUnavailableError: its runner is not installed here.
    """
    sidecar = read_sidecar(path)
    try:
        backend = _backend(sidecar.runner)
        spec = spec_of(sidecar.network)
        for bound in (sidecar.profile.min, sidecar.profile.max):
            check_shape(spec, bound)
    except InputError as error:
        raise EngineMismatchError(
            f"the sidecar of {os.fspath(path)} is damaged ({error}); {sidecar.cure}"
        ) from None
    backend.check_runnable()
    device = backend.device()
    check_environment(
        path,
        sidecar,
        runner=backend.name,
        runner_version=backend.version(),
        device_name=device.name,
        capability=device.capability,
        plugins_sha256=environment.plugin_hash(),
    )
    check_engine_file(path, sidecar)
    return Engine(backend.load(Path(path), sidecar), spec, sidecar)


def _first_that_runs(in_memory: bool) -> str:
    for name in ("tensorrt", "tensorrt_rtx", "cuda", "openvino"):
        try:
            if name != "cuda":
                return choose_backend(name).name
            if in_memory:
                check_cuda()
                return name
        except RunnerUnavailableError:
            continue
    # An ONNX file has no network to fall back to: say why nothing runs it.
    return "torch" if in_memory else choose_backend("auto").name


def build_engine(
    network: RestorationNetwork | str | os.PathLike[str],
    *,
    precision: str = "fp32",
    shape: tuple[int, ...] | None = None,
    profile: ShapeProfile | None = None,
    runner: str = "auto",
    options: BuilderOptions | None = None,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    deploy: bool = True,
) -> Engine:
    """An engine ready to run: built, or taken from the cache.

    Arguments as in `build_engine_file`; ``runner="cuda"`` and ``"torch"`` run the network itself.
    "auto" takes the first that works of TensorRT, TensorRT-RTX, cuda, OpenVINO and torch.

    Frames that a half precision spoils (NaN, infinity, one colour) are run again in the next safer
    one, whose engine is built when the first such frame comes; see `Engine.frames_repeated`.
    """
    if runner == "auto":
        in_memory = isinstance(network, RestorationNetwork) and precision != "int8"
        runner = _first_that_runs(in_memory)
    arguments: dict[str, Any] = {
        "shape": shape,
        "profile": profile,
        "options": options,
        "cache": cache,
        "deploy": deploy,
    }
    if runner in IN_MEMORY:
        if not isinstance(network, RestorationNetwork):
            raise InputError(f"the {runner} runner runs networks, not ONNX files")
        if precision == "int8":
            raise InputError(f"the {runner} runner has no int8; tensorrt and openvino have")
        engine = Engine(IN_MEMORY[runner](network, precision, deploy=deploy), network.spec)
    else:
        path = build_engine_file(
            network, precision=precision, runner=runner, progress=progress, to_run=True, **arguments
        )
        engine = load_engine(path)
    safer = _SAFER.get(engine.runner.precision)
    if safer is not None and isinstance(network, RestorationNetwork):
        engine.fallback = functools.partial(
            build_engine, network, precision=safer, runner=runner, **arguments
        )
    return engine


_SAFER = {"int8": "fp16", "fp16": "bf16", "bf16": "fp32"}

"""Network or ONNX file -> engine file -> engine."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import time
from pathlib import Path
from typing import Any

from restorert.backends import Backend, choose
from restorert.engine.cache import EngineCache
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.engine.request import BuildRequest
from restorert.engine.sidecar import Sidecar, check_engine_file, read_sidecar, sidecar_path
from restorert.errors import Cure, EngineMismatchError, InputError
from restorert.export import OnnxFile
from restorert.export.onnx_file import spec_of
from restorert.files import check_output
from restorert.networks import RestorationNetwork, list_networks, network_spec, seed_of
from restorert.precision import SAFER, check_engine_precision
from restorert.progress import Progress, stage
from restorert.quantize import shipped_int8
from restorert.runtime.engine import Engine
from restorert.runtime.load import load_engine
from restorert.runtime.onnx_cache import cached_onnx
from restorert.spec import NetworkSpec, check_shape
from restorert.version import __version__
from restorert.weights import shipped_weights, weights_hash


class NetworkSource:
    """A network in memory to build from, in its deploy form or as published.

    Attributes:
        spec: of the network.
        path: the checkpoint it was read from, if any.
        weights_sha256: of the network.
    """

    def __init__(self, network: RestorationNetwork, *, deploy: bool) -> None:
        self.network, self.deploy = network, deploy
        self.spec: NetworkSpec = network.spec
        self.path = network.checkpoint.path if network.checkpoint else None
        self.weights_sha256 = weights_hash(network)

    def onnx(
        self, backend: Backend, precision: str, cache: EngineCache, progress: Progress | None
    ) -> OnnxFile:
        """The file that ``backend`` builds an engine of ``precision`` from."""
        network, calibration, digest = self.network, None, self.weights_sha256
        if precision == "int8":
            shipped = shipped_int8(network)
            if shipped is None:
                raise InputError(
                    "an int8 engine is built from a calibrated ONNX file", Cure.CALIBRATE
                )
            network, calibration = shipped
            digest = calibration.weights_sha256
        with stage("exporting to ONNX", progress):
            return cached_onnx(
                network,
                backend.onnx_precision(precision),
                cache,
                weights_sha256=digest,
                runner=backend.name,
                deploy=self.deploy,
                calibration=calibration,
            )

    def origin(self) -> tuple[tuple[str, ...], str]:
        """`BuildRequest.named_by` and `BuildRequest.weights_from`."""
        spec, checkpoint = self.spec, self.network.checkpoint
        shipped = shipped_weights().get(spec.name)
        model, form = f"--model={spec.name}", () if self.deploy else ("--no-deploy",)
        if checkpoint:
            if checkpoint.sha256 != self.weights_sha256:  # trained further since it was loaded
                return (), ""
            if checkpoint.path == shipped:
                return (model, *form), "the package"
            return (model, f"--weights={checkpoint.path}", *form), f"file {checkpoint.path}"
        registered = spec.name in list_networks() and spec == network_spec(spec.name)
        if registered and seed_of(self.network) == 0:
            # On the command line a bare name means the shipped weights, if there are any.
            return () if shipped else (model, *form), "random"
        return (), ""


class OnnxSource:
    """An ONNX file from `export_onnx` or `quantize_network`; interface as in `NetworkSource`."""

    weights_sha256 = ""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.path: Path | None = file.path
        self.spec = spec_of(file.metadata)

    def onnx(
        self, backend: Backend, precision: str, cache: EngineCache, progress: Progress | None
    ) -> OnnxFile:
        found, needed = self.file.metadata.get("precision"), backend.onnx_precision(precision)
        if found != needed:
            raise InputError(
                f"{self.path} is {found}; an engine of {precision} on {backend.name} needs one of "
                f"{needed}",
                Cure.CALIBRATE if needed == "int8" else Cure.EXPORT,
            )
        return self.file

    def origin(self) -> tuple[tuple[str, ...], str]:
        return (f"--onnx={self.path}",), ""


def build_engine_file(
    network: RestorationNetwork | OnnxFile | str | os.PathLike[str],
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
        network: a network, or an ONNX file from `export_onnx` or `quantize_network`: its path, or
            an `OnnxFile` if it has been read already.
        path: where to write; None writes to the cache, or reuses a file that is there.
        precision: fp32, fp16, bf16 or int8; must be that of an ONNX file. int8 needs an ONNX file
            from `quantize_network`, except for the networks whose calibration comes with the
            package (hinet-tiny).
        shape: optimise for this [N, C, H, W]; any smaller size is accepted too.
        profile: instead of ``shape``: the exact smallest, optimal and largest shapes.
        runner: see `restorert.backends.choose`.
        options: for the builder.
        cache: None is the user's cache folder.
        progress: see `Progress`.
        deploy: build the network's deploy form, see `RestorationNetwork.deploy`.
        to_run: choose only among runners that can also run on this machine.

    Returns:
        The engine file; its sidecar is next to it.

    Raises:
        RestorertError: InputError, BuildError or RunnerUnavailableError, one line each.
    """
    check_engine_precision(precision)
    if shape is not None and profile is not None:
        raise InputError("give a shape or a profile, not both")
    backend = choose(runner, precision=precision, to_run=to_run)
    source: NetworkSource | OnnxSource
    if isinstance(network, RestorationNetwork):
        source = NetworkSource(network, deploy=deploy)
    else:
        source = OnnxSource(network if isinstance(network, OnnxFile) else OnnxFile.read(network))
    if path is not None:
        check_output(path, source.path)
        check_output(sidecar_path(path), source.path)
    if profile is None:
        default = (1, source.spec.in_channels, 720, 1280)
        profile = ShapeProfile.up_to(shape or default, source.spec.size_multiple)
    for bound in (profile.min, profile.opt, profile.max):
        check_shape(source.spec, bound)
    cache = cache or EngineCache()
    onnx = source.onnx(backend, precision, cache, progress)
    named_by, weights_from = source.origin()
    request = BuildRequest(
        onnx,
        precision,
        profile,
        options or BuilderOptions(),
        weights_sha256=source.weights_sha256,
        weights_from=weights_from,
        named_by=named_by,
    )
    return _built(request, backend, Path(path) if path is not None else None, cache, progress)


def _built(
    request: BuildRequest,
    backend: Backend,
    path: Path | None,
    cache: EngineCache,
    progress: Progress | None,
) -> Path:
    """Build the engine file of a request at ``path``, or find or build it in the cache."""
    host = backend.host()
    facts = {**request.facts(), **dataclasses.asdict(host), "restorert": __version__}
    label = f"{request.onnx.metadata['network']}-{request.precision}-{backend.name}"

    def build(out: Path) -> None:
        started = time.perf_counter()
        built = backend.build(request, out, progress)
        sidecar = Sidecar.of(
            request,
            built,
            out,
            host,
            seconds=time.perf_counter() - started,
            rebuild=request.command(backend.name, backend.options, path),
        )
        sidecar.write(out)

    if path is None:
        return cache.get_or_build(cache.path(label, facts, backend.suffix), _is_whole, build)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:20]
    with cache.locked(cache.folder / f"{label}-{name}"):
        build(path)
    return path


def _is_whole(path: Path) -> bool:
    try:
        check_engine_file(path, read_sidecar(path))
    except EngineMismatchError:
        return False
    return True


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
    verify: int = 0,
) -> Engine:
    """Build an engine or take it from the cache, and load it.

    Arguments as in `build_engine_file`; ``runner="cuda"`` and ``"torch"`` run the network itself.
    "auto" uses the first of `restorert.backends.BACKENDS` that works. ``verify`` is `Engine`'s: it
    needs a network, because an ONNX file has one precision.

    Frames that a half precision spoils (NaN, infinity, one colour) are run again in the next safer
    one, whose engine is built when the first such frame occurs; see `Engine.frames_repeated`.
    """
    check_engine_precision(precision)
    given = ("onnx", "network") if isinstance(network, RestorationNetwork) else ("onnx",)
    backend = choose(runner, given=given, precision=precision)
    arguments: dict[str, Any] = {
        "shape": shape,
        "profile": profile,
        "runner": backend.name,
        "options": options,
        "cache": cache,
        "deploy": deploy,
    }
    if isinstance(network, RestorationNetwork) and backend.takes == "network":
        engine = Engine(backend.run(network, precision, deploy=deploy), network.spec)
    else:
        path = build_engine_file(
            network, precision=precision, progress=progress, to_run=True, **arguments
        )
        engine = load_engine(path)
    if verify < 0 or (verify and not isinstance(network, RestorationNetwork)):
        raise InputError("verify must be >= 0, and needs a network instead of an ONNX file")
    engine.verify = verify
    safer = SAFER.get(engine.runner.precision)
    if safer is not None and isinstance(network, RestorationNetwork):
        engine.fallback = functools.partial(build_engine, network, precision=safer, **arguments)
    return engine

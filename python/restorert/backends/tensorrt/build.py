"""ONNX -> engine, with one code path for TensorRT (10.8 to 11.x) and TensorRT-RTX."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from restorert.backends.tensorrt.module import (
    Messages,
    load_module,
    load_plugins,
    planner,
    supports_plugins,
    version_tuple,
)
from restorert.backends.tensorrt.plan import Plan, read_plan
from restorert.engine import device
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.engine.request import BuildRequest, Built
from restorert.errors import BuildError
from restorert.export import export_onnx
from restorert.files import writing
from restorert.networks import RestorationNetwork
from restorert.progress import Progress

# OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE: a plugin replaces a local function's body.
_OVERRIDE_SINCE = (10, 15)


def _progress_monitor(trt: ModuleType, progress: Progress) -> Any:
    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = max(num_steps, 1)
            progress(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, min((step + 1) / self.steps.get(phase_name, 1), 1.0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress(phase_name, 1.0)

    return _Monitor()


def _targets(trt: ModuleType, options: BuilderOptions) -> tuple[str, ...]:
    """Compute capabilities to build for; empty if the library only builds for this GPU."""
    if not hasattr(trt, "ComputeCapability"):
        return ()
    known = {
        f"{name[2:-1]}.{name[-1]}": member
        for name, member in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    for target in options.compute_capabilities:
        if target not in known:
            raise BuildError(
                f"{trt.__name__} {trt.__version__} cannot build for compute capability {target}; "
                f"it supports {', '.join(known)}"
            )
    if options.compute_capabilities:
        return options.compute_capabilities
    gpu = device.cuda()
    return (gpu.capability,) if gpu and gpu.capability in known else tuple(known)


@dataclass(frozen=True)
class Compiled:
    """A serialised engine in memory.

    Attributes:
        engine: its bytes, in the builder's own memory.
        plan: its kernels; None if the log lists none.
        layers, targets, plugins: see `Built`.
    """

    engine: Any
    plan: Plan | None
    layers: dict[str, int]
    targets: tuple[str, ...]
    plugins: bool


def compile_onnx(
    onnx_path: Path,
    profile: ShapeProfile,
    options: BuilderOptions,
    module: str,
    *,
    progress: Progress | None = None,
    messages: Messages | None = None,
) -> Compiled:
    """Parse an ONNX file and compile it.

    Args:
        onnx_path: from `restorert.export.export_onnx`; the engine has its types.
        profile: shapes to accept.
        options: see `BuilderOptions`.
        module: "tensorrt" or "tensorrt_rtx".
        progress: see `Progress`.
        messages: collects the builder's log; pass a verbose one to keep all of it.

    Raises:
        BuildError: the parser or the builder failed; its last error in one line.
        RunnerUnavailableError: the module is not usable.
    """
    trt = load_module(module)
    messages = messages or Messages(trt)
    builder = trt.Builder(messages.logger)
    if builder is None:
        raise BuildError(f"{module}: {messages.last_error('no builder could be made')}")
    # TensorRT 11 has only strongly typed networks, and the flag for them will be dropped.
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, messages.logger)
    plugins = supports_plugins(trt)
    source = onnx_path.read_bytes()
    if plugins:
        load_plugins(trt)
        if version_tuple(trt.__version__) >= _OVERRIDE_SINCE:
            parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
        else:
            source = _without_function_bodies(source)
    if not parser.parse(source):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        reason = " ".join((reasons or [messages.last_error()])[0].split())
        raise BuildError(f"{module} cannot parse {onnx_path}: {reason}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(
            trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 1024 * 1024
        )
    targets = _targets(trt, options)
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, name in enumerate(targets):
            capability = getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}")
            config.set_compute_capability(capability, index)
    monitor = _progress_monitor(trt, progress) if progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    shapes = builder.create_optimization_profile()
    shapes.set_shape(network.get_input(0).name, profile.min, profile.opt, profile.max)
    config.add_optimization_profile(shapes)
    types: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            name = str(layer.get_output(0).dtype).removeprefix("DataType.")
            types[name] += 1
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(f"{module} could not build: {messages.last_error()}")
    return Compiled(engine, read_plan(messages.lines), dict(types), targets, plugins)


def build_tensorrt(
    request: BuildRequest, target: Path, module: str, progress: Progress | None = None
) -> Built:
    """Build an engine file with ``module``, "tensorrt" or "tensorrt_rtx"; see `Backend.build`."""
    compiled = compile_onnx(
        request.onnx.path, request.profile, request.options, module, progress=progress
    )
    plan, precision = compiled.plan, request.precision
    # A strongly typed network runs in the types of its ONNX file; check that its plan says so.
    precisions = plan.precisions() if plan else {}
    if precisions and precision not in precisions:
        ran = ", ".join(sorted(precisions))
        raise BuildError(
            f"{module} built an engine for {precision} whose layers all run in {ran}; build for "
            f"{ran}, with another version of {module} or with another runner"
        )
    with writing(target, BuildError) as temporary:
        temporary.write_bytes(compiled.engine)
    return Built(
        precision,
        targets=compiled.targets,
        plugins=compiled.plugins,
        layers=compiled.layers,
        precisions=precisions,
        plan={kind: list(pair) for kind, pair in plan.by_kind().items()} if plan else {},
    )


def _without_function_bodies(source: bytes) -> bytes:
    # Before 10.15 the parser prefers a function's body to a plugin of the same name.
    import onnx

    model = onnx.load_from_string(source)
    del model.functions[:]
    return bytes(model.SerializeToString())


def plan_of(
    network: RestorationNetwork | str | os.PathLike[str],
    shape: tuple[int, ...],
    *,
    precision: str = "fp16",
    options: BuilderOptions | None = None,
    progress: Progress | None = None,
    deploy: bool = True,
) -> Plan:
    """The kernels that TensorRT-RTX, or else TensorRT, builds for a network at one shape.

    Args:
        network: a network, or an ONNX file from `restorert.export.export_onnx`.
        shape: [N, C, H, W].
        precision: of the export; ignored for an ONNX file.
        options: for the builder; by default for compute capability 8.9, whatever GPU is present,
            so that plans can be compared.
        progress: see `Progress`.
        deploy: plan the network's deploy form, see `RestorationNetwork.deploy`.

    Raises:
        BuildError: the builder failed or reported no kernels.
        RunnerUnavailableError: no TensorRT, or no exporter.
    """
    module = planner()
    options = options or BuilderOptions(compute_capabilities=("8.9",))
    with tempfile.TemporaryDirectory(prefix="restorert-") as folder:
        onnx_path = Path(folder) / "network.onnx"
        if isinstance(network, RestorationNetwork):
            export_onnx(network, onnx_path, precision=precision, deploy=deploy, runner=module)
        else:
            onnx_path = Path(network)
        compiled = compile_onnx(
            onnx_path, ShapeProfile.fixed(shape), options, module, progress=progress
        )
    if compiled.plan is None:
        raise BuildError(f"{module} reports no kernels")
    return compiled.plan

"""ONNX -> TensorRT engine, for TensorRT (10.8 to 11.x) and TensorRT-RTX by one code path."""

from __future__ import annotations

import functools
import importlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from restorert.engine import environment
from restorert.engine.plan import Plan, read_plan
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.errors import BuildError, RunnerUnavailableError
from restorert.export import export_onnx
from restorert.files import replace_atomically
from restorert.networks import RestorationNetwork

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""

MODULES = ("tensorrt", "tensorrt_rtx")
NO_PLUGINS = (
    "this build of restorert has no TensorRT plugins; with nvcc and TensorRT's headers "
    "(TENSORRT_ROOT) at hand, install again: pip install . -C cmake.define.TENSORRT=ON"
)
# Strongly typed networks with every cast and Q/DQ form used here.
_OLDEST = (10, 8)
# OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE: a plugin takes the place of a local function's body.
_OVERRIDE_SINCE = (10, 15)


@functools.cache
def load_module(name: str) -> ModuleType:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        RunnerUnavailableError: not installed, not loadable or too old; the message says which.
    """
    package = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}[name]
    try:
        module = importlib.import_module(name)
        version = module.__version__
        module.Builder  # noqa: B018  # PyPI's stub package imports, and holds nothing
    except Exception as error:  # vendor modules raise whatever their loader raises
        reason = "not installed" if isinstance(error, ModuleNotFoundError) else str(error)
        first_line = reason.splitlines()[0] if reason else type(error).__name__
        raise RunnerUnavailableError(
            f"{name} is not usable ({first_line}); install it with: pip install {package}"
        ) from None
    if name == "tensorrt" and version_tuple(version) < _OLDEST:
        raise RunnerUnavailableError(f"tensorrt {version} is too old; 10.8 or newer is needed")
    return module


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.15.1.29"`` -> (10, 15, 1, 29)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


class Messages:
    """Collects what TensorRT logs: errors, to be told in one line, and the kernels of the plan.

    Attributes:
        errors: every error's text.
        lines: messages that list kernels (see `restorert.engine.plan`); all of them if ``verbose``.
    """

    def __init__(self, trt: ModuleType, *, verbose: bool = False) -> None:
        self.errors: list[str] = []
        self.lines: list[str] = []
        collected = self

        class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    collected.errors.append(message)
                if verbose or ", LayerType: " in message:
                    collected.lines.append(message)

        self.logger = _Logger()

    def last_error(self, fallback: str) -> str:
        """The last error on one line."""
        return " ".join(self.errors[-1].split()) if self.errors else fallback


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
    """Compute capabilities to build for; empty where the library builds for this GPU alone."""
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
                f"it knows {', '.join(known)}"
            )
    if options.compute_capabilities:
        return options.compute_capabilities
    device = environment.cuda()
    return (device.capability,) if device and device.capability in known else tuple(known)


def supports_plugins(trt: ModuleType) -> bool:
    """Whether networks can hold plugin layers: TensorRT proper only (RTX's parser aborts)."""
    return trt.__name__ == "tensorrt" and environment.plugin_library() is not None


def build_tensorrt(
    onnx_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    profile: ShapeProfile,
    options: BuilderOptions,
    *,
    module: str,
    precision: str | None = None,
    progress: Progress | None = None,
    messages: Messages | None = None,
) -> dict[str, Any]:
    """Build an engine file.

    Args:
        onnx_path: from `restorert.export.export_onnx`; its types are the engine's types.
        target: replaced only when the engine is complete.
        profile: shapes to accept.
        options: see `BuilderOptions`.
        module: "tensorrt" or "tensorrt_rtx".
        precision: refuse an engine none of whose layers run in it; None refuses none.
        messages: collects the builder's log; pass a verbose one to keep all of it.

    Returns:
        Facts for the sidecar: ``targets`` (compute capabilities), ``plugins`` (whether plugin
        layers may be inside), ``layers`` (their count by output type, where it can be read) and
        ``plan`` (a `restorert.engine.plan.Plan`; None where the log tells of none).

    Raises:
        BuildError: the parser or the builder refused (its last error in one line), or nothing runs
            in ``precision``; what stood at ``target`` is untouched.
        RunnerUnavailableError: the module is not usable.
    """
    trt = load_module(module)
    messages = messages or Messages(trt)
    builder = trt.Builder(messages.logger)
    if builder is None:
        raise BuildError(f"{module}: {messages.last_error('no builder could be made')}")
    # TensorRT 11 has strongly typed networks only, and will drop the flag that asks for them.
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, messages.logger)
    plugins = supports_plugins(trt)
    source = Path(onnx_path).read_bytes()
    if plugins:
        load_plugins(trt)
        if version_tuple(trt.__version__) >= _OVERRIDE_SINCE:
            parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
        else:
            source = _without_function_bodies(source)
    if not parser.parse(source):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        reason = " ".join((reasons or [messages.last_error("no reason given")])[0].split())
        raise BuildError(f"{module} cannot parse {os.fspath(onnx_path)}: {reason}")
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
    types: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.num_outputs:
            name = str(layer.get_output(0).dtype).removeprefix("DataType.")
            types[name] = types.get(name, 0) + 1
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{module} could not build: {messages.last_error('no reason given')}")
    kernels = read_plan(messages.lines)
    # A strongly typed network runs in the types of its ONNX file, and its plan must show it.
    precisions = kernels.precisions() if kernels else {}
    if precision is not None and precisions and precision not in precisions:
        ran = ", ".join(sorted(precisions))
        other = "with --runner openvino" if precision == "int8" else f"another version of {module}"
        raise BuildError(
            f"{module} built an engine of {precision} whose layers all run in {ran}; "
            f"build for {ran}, or {other}"
        )
    try:
        with replace_atomically(target) as temporary, open(temporary, "wb") as stream:
            stream.write(plan)
    except OSError as error:
        raise BuildError(f"cannot write {os.fspath(target)}: {error.strerror or error}") from None
    return {
        "targets": targets,
        "plugins": plugins,
        "layers": types,
        "plan": kernels,
    }


def plan_of(
    network: RestorationNetwork | str | os.PathLike[str],
    shape: tuple[int, ...],
    *,
    precision: str = "fp16",
    options: BuilderOptions | None = None,
    progress: Progress | None = None,
    deploy: bool = True,
) -> Plan:
    """The kernels that TensorRT-RTX, or else TensorRT, makes of a network at one shape.

    Args:
        network: a network, or an ONNX file from `restorert.export.export_onnx`.
        shape: [N, C, H, W].
        precision: of the export; an ONNX file brings its own.
        options: for the builder; by default for compute capability 8.9, whatever GPU is here, so
            that plans can be compared.
        progress: called with what is being done and the share done.
        deploy: plan the network's deploy form, see `RestorationNetwork.deploy`.

    Raises:
        BuildError: the builder refused, or told of no kernels.
        RunnerUnavailableError: no TensorRT, or no exporter.
    """
    module = planner()
    options = options or BuilderOptions(compute_capabilities=("8.9",))
    with tempfile.TemporaryDirectory(prefix="restorert-") as folder:
        onnx_path = Path(folder) / "network.onnx"
        if isinstance(network, RestorationNetwork):
            export_onnx(
                network,
                onnx_path,
                precision=precision,
                deploy=deploy,
                runner=module,
            )
        else:
            onnx_path = Path(network)
        facts = build_tensorrt(
            onnx_path,
            Path(folder) / "network.engine",
            ShapeProfile.fixed(shape),
            options,
            module=module,
            progress=progress,
        )
    plan = facts["plan"]
    if not isinstance(plan, Plan):
        raise BuildError(f"{module} tells nothing of its kernels")
    return plan


def planner() -> str:
    """The module that `plan_of` asks: TensorRT-RTX where it is, which plans without a GPU."""
    return next((name for name in reversed(MODULES) if _is_usable(name)), MODULES[0])


def _is_usable(module: str) -> bool:
    try:
        load_module(module)
    except RunnerUnavailableError:
        return False
    return True


def load_plugins(trt: ModuleType | None = None) -> list[str]:
    """Register restorert's plugins with TensorRT's registry.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``; None takes the first usable one.

    Returns:
        Names of the creators registered, as ``name:version:namespace``.

    Raises:
        RunnerUnavailableError: no TensorRT, or the plugin library was not built.
    """
    if trt is None:
        trt = _first_module()
    path = environment.plugin_library()
    if path is None:
        raise RunnerUnavailableError(NO_PLUGINS)
    registry = trt.get_plugin_registry()
    if str(path) not in _LOADED.setdefault(trt.__name__, set()):
        registry.load_library(str(path))
        _LOADED[trt.__name__].add(str(path))
    from restorert.ops import SPECS

    names = {spec.name for spec in SPECS}
    return sorted(
        f"{creator.name}:{creator.plugin_version}:{creator.plugin_namespace}"
        for creator in registry.all_creators
        if creator.name in names
    )


_LOADED: dict[str, set[str]] = {}


def _first_module() -> ModuleType:
    errors = []
    for name in MODULES:
        try:
            return load_module(name)
        except RunnerUnavailableError as error:
            errors.append(str(error))
    raise RunnerUnavailableError(errors[0])


def _without_function_bodies(source: bytes) -> bytes:
    # Before 10.15 the parser prefers a function's body to a plugin of its name.
    import onnx

    model = onnx.load_from_string(source)
    del model.functions[:]
    return bytes(model.SerializeToString())


def layer_information(trt: ModuleType, engine: Any) -> list[dict[str, Any]]:
    """Each layer of a deserialised engine as TensorRT's inspector tells it."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers = json.loads(text).get("Layers", [])
    return [layer if isinstance(layer, dict) else {"Name": layer} for layer in layers]

"""Network -> ONNX, with fused ops as local functions of domain ``restorert``."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from restorert import ops
from restorert.errors import InputError, RunnerUnavailableError
from restorert.export.onnx_file import set_metadata, write_model
from restorert.export.repeated_blocks import blocks_replaced, put_blocks_back
from restorert.files import check_output
from restorert.networks import RestorationNetwork
from restorert.precision import check_precision
from restorert.spec import NetworkSpec, check_shape

if TYPE_CHECKING:
    import onnx

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
INPUT_NAME = "input"
OUTPUT_NAME = "output"
# The oldest opset with Split(num_outputs); every TensorRT since 8.6 reads it.
OPSET = 18
# The oldest opset whose convolutions and instance norm accept bfloat16.
OPSET_BF16 = 22


def cast_network(network: RestorationNetwork, precision: str) -> RestorationNetwork:
    """``network`` with weights of ``precision``: itself if it has that precision, else a copy.

    Raises:
        InputError: unknown precision, or a weight overflows it.
    """
    check_precision(precision)
    dtype = DTYPES[precision]
    if all(t.dtype == dtype for t in network.state_dict().values() if t.is_floating_point()):
        return network
    limit = torch.finfo(dtype).max
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and tensor.abs().max() > limit:
            raise InputError(
                f"weight {name!r} exceeds {limit:.0f}, the largest {precision} number; use bf16"
            )
    return copy.deepcopy(network).to(dtype)


def export_onnx(
    network: RestorationNetwork,
    path: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    shape: tuple[int, ...] | None = None,
    dynamic: bool = True,
    deploy: bool = True,
    runner: str = "tensorrt",
) -> Path:
    """Write ``network`` as one ONNX file.

    Input and output are float32 [N, C, H, W] at every precision: the picture stays in float32,
    and casts in the file give the features the requested precision (TensorRT's strongly typed
    form). Fused ops are local functions of domain ``restorert`` with bodies in standard ONNX.

    Args:
        network: from `create_network` or `load_network`.
        path: replaced only when the new file is complete.
        precision: fp32, fp16 or bf16.
        shape: the input's shape if ``dynamic`` is false; None is one picture of 720 x 1280.
        dynamic: batch, height and width are free; height and width are multiples of
            ``network.spec.size_multiple``.
        deploy: export the network's deploy form, see `RestorationNetwork.deploy`.
        runner: the deploy form is optimised for this runner; others can run it as well.

    Returns:
        ``path``.

    Raises:
        InputError: unknown precision, a shape the network cannot take, or an unwritable path.
        RunnerUnavailableError: onnx or onnxscript is missing.
    """
    spec: NetworkSpec = network.spec
    shape = shape or spec.shape_for(720, 1280)
    check_shape(spec, shape)
    check_precision(precision)
    target = Path(path)
    check_output(target, network.checkpoint.path if network.checkpoint else None)
    if deploy:
        network = network.deploy(runner)
    network = cast_network(network, precision)
    opset = OPSET_BF16 if precision == "bf16" else OPSET
    model = _trace(network, spec, None if dynamic else shape, opset)
    _strip_debug_information(model)
    if precision == "bf16":
        _widen_transposed_convolutions(model)
    metadata = {
        "network": spec.name,
        "family": spec.family,
        "precision": precision,
        "size_multiple": spec.size_multiple,
        "padding_mode": spec.padding_mode,
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "tile": spec.tile,
        "deployed": list(network.deployed),
    }
    set_metadata(model, metadata)
    write_model(model, target)
    return target


def _trace(
    network: RestorationNetwork, spec: NetworkSpec, shape: tuple[int, ...] | None, opset: int
) -> onnx.ModelProto:
    try:
        import onnx.parser
        import onnxscript.optimizer
    except ImportError:
        raise RunnerUnavailableError(
            "export needs onnx and onnxscript: pip install onnx onnxscript"
        ) from None
    from torch.export import Dim

    multiple = spec.size_multiple
    dynamic_shapes: Any = None
    if shape is None:
        # torch.export treats a size of 1 as fixed and equal sizes as tied: hence 2, 3m x 2m.
        shape = (2, spec.in_channels, 3 * multiple, 2 * multiple)
        dynamic_shapes = (
            {
                0: Dim("batch"),
                2: multiple * Dim("rows") if multiple > 1 else Dim("height"),
                3: multiple * Dim("columns") if multiple > 1 else Dim("width"),
            },
        )
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with _quiet(), evaluating(network):
        example = (torch.zeros(shape, device=device),)
        if dynamic_shapes is None:  # tracing with fixed sizes is fast
            model = _trace_module(network, example, None, opset)
        else:
            with blocks_replaced(network) as kinds:
                model = _trace_module(network, example, dynamic_shapes, opset)
            put_blocks_back(model, kinds, functools.partial(_trace_module, opset=opset))
        # No size limit: whatever depends only on weights, such as a slice of them, becomes one.
        onnxscript.optimizer.fold_constants(
            model, onnx_shape_inference=False, input_size_limit=2**62, output_size_limit=2**62
        )
        onnxscript.optimizer.remove_unused_nodes(model)
    called = {node.op_type for node in model.graph.node if node.domain == ops.DOMAIN}
    model.functions.extend(
        onnx.parser.parse_function(op.onnx_function) for op in ops.SPECS if op.name in called
    )
    for function in model.functions:
        for imported in function.opset_import:
            if imported.domain == "":
                imported.version = opset  # the operators used are the same in all of them
    if dynamic_shapes is not None:
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
                dims[axis].dim_param = name
        # Intermediate sizes are stated in the exporter's own symbols, which no longer exist.
        del model.graph.value_info[:]
    return model


def _trace_module(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], dynamic_shapes: Any, opset: int
) -> onnx.ModelProto:
    """Trace ``module``; fused ops become calls of functions that are not in the model yet."""
    import onnxscript.optimizer

    exported = torch.export.export(module, example, dynamic_shapes=dynamic_shapes)
    fused = {getattr(torch.ops.restorert, op.name).default: op for op in ops.SPECS}
    used = {node.target for node in exported.graph.nodes} & fused.keys()
    if used:  # run_decompositions traces again
        exported = exported.run_decompositions(
            {overload: _function_call(fused[overload]) for overload in used}
        )
    program = torch.onnx.export(
        exported,
        (),
        dynamo=True,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        opset_version=opset,
        # torch's own optimiser would inline the functions that plugins replace.
        optimize=False,
        verbose=False,
    )
    assert program is not None
    onnxscript.optimizer.optimize_ir(program.model, inline=False)
    return cast("onnx.ModelProto", program.model_proto)


def _function_call(op: ops.OpSpec) -> Callable[..., Any]:
    """A decomposition of a fused op into one call of its ONNX function.

    A call whose tensors are not exactly the function's inputs becomes plain operators: TensorRT's
    parser does not support optional inputs of functions.
    """
    import onnx.parser

    takes = list(onnx.parser.parse_function(op.onnx_function).input)
    schema = getattr(torch.ops.restorert, op.name).default._schema

    def call(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        tensors: dict[str, torch.Tensor] = {}
        attributes: dict[str, Any] = {}
        for argument in schema.arguments:
            value = given.get(argument.name, argument.default_value)
            if "Tensor" not in str(argument.type):
                attributes[argument.name] = value
            elif value is not None:
                tensors[argument.name] = value
        if list(tensors) != takes:
            return op.reference(**given)
        inputs = list(tensors.values())
        name = f"{ops.DOMAIN}::{op.name}"
        outputs = op.fake(**given)
        if isinstance(outputs, torch.Tensor):
            return torch.onnx.ops.symbolic(
                name, inputs, attributes, dtype=outputs.dtype, shape=outputs.shape, version=1
            )
        return torch.onnx.ops.symbolic_multi_out(
            name,
            inputs,
            attributes,
            dtypes=[output.dtype for output in outputs],
            shapes=[output.shape for output in outputs],
            version=1,
        )

    return call


@contextlib.contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; restores each module's own mode afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress messages and its notes about missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _widen_transposed_convolutions(model: onnx.ModelProto) -> None:
    """Run transposed convolutions in float32: TensorRT-RTX 1.7 cannot build them in bfloat16."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {value.name: value.type for value in model.graph.value_info}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConvTranspose":
            nodes.append(node)
            continue
        for name in node.input[1:]:
            wide = numpy_helper.to_array(weights[name]).astype(np.float32)
            weights[name].CopyFrom(numpy_helper.from_array(wide, name))
            if name in types:
                types[name].tensor_type.elem_type = TensorProto.FLOAT
        source, result = node.input[0], node.output[0]
        node.input[0], node.output[0] = f"{source}_of_{node.name}", f"{result}_wide"
        cast_in = helper.make_node("Cast", [source], [node.input[0]], to=TensorProto.FLOAT)
        cast_out = helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.BFLOAT16)
        nodes += [cast_in, node, cast_out]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _strip_debug_information(model: onnx.ModelProto) -> None:
    # The exporter records stack traces, which contain paths of the exporting machine and make the
    # file (and its cache key) different for every checkout.
    del model.metadata_props[:]
    graphs: list[Any] = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
        values = [*graph.value_info]
        if graph is model.graph:
            values += [*graph.input, *graph.output, *graph.initializer]
        for value in values:
            del value.metadata_props[:]

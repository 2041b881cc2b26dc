"""Exported files against PyTorch, through ONNX Runtime and onnx's own tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx.shape_inference
import onnxruntime
import pytest
import torch

import restorert as rr
from restorert import ops
from restorert.errors import InputError
from restorert.export import inline_functions, read_metadata
from restorert.testing import psnr

PRECISIONS = ("fp32", "fp16", "bf16")
SIZES = ((1, 16, 16), (1, 24, 40), (3, 12, 36), (2, 4, 4))
Export = Callable[..., Path]


def _network(**config: Any) -> rr.networks.RestorationNetwork:
    return rr.create_network("hinet", **{"width": 8, "depth": 3, **config})


@pytest.fixture(scope="module")
def network() -> rr.networks.RestorationNetwork:
    return _network()


@pytest.fixture(scope="module")
def exported(
    network: rr.networks.RestorationNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """Export once for the module: tracing takes seconds."""
    folder = tmp_path_factory.mktemp("exported")

    def export(precision: str = "fp32", dynamic: bool = True) -> Path:
        path = folder / f"{precision}-{dynamic}.onnx"
        if not path.exists():
            shape = None if dynamic else (1, 3, 24, 40)
            rr.export_onnx(network, path, precision=precision, shape=shape, dynamic=dynamic)
        return path

    return export


def _run(path: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


def _picture(n: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_one_dynamic_file_gives_the_picture_at_every_size(
    network: rr.networks.RestorationNetwork, exported: Export, size: tuple[int, int, int]
) -> None:
    x = _picture(*size)
    found = _run(exported(), x)
    # measured worst: 1.8e-7
    torch.testing.assert_close(found, network(x), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fixed_file(
    network: rr.networks.RestorationNetwork, exported: Export, precision: str
) -> None:
    path = exported(precision, dynamic=False)
    x = _picture(1, 24, 40)
    assert psnr(_run(path, x), network(x)) > 80  # measured: 87.2 for fp16
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 3, 24, 40]
    with pytest.raises(Exception, match="invalid dimensions"):
        _run(path, _picture(1, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_half_precision_keeps_the_picture(
    network: rr.networks.RestorationNetwork, exported: Export, size: tuple[int, int, int]
) -> None:
    x = _picture(*size)
    assert psnr(_run(exported("fp16"), x), network(x)) > 80  # measured worst: 87.2


@pytest.mark.slow
def test_bfloat16_keeps_the_picture(
    network: rr.networks.RestorationNetwork, exported: Export
) -> None:
    # ONNX Runtime's CPU has no bfloat16 convolution; onnx's reference implementation has.
    x = _picture(1, 8, 12)
    # Inlined: it cannot run functions whose attributes have defaults.
    inlined = inline_functions(exported("bf16"), exported("bf16").with_suffix(".inlined"))
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load(inlined))
    found = torch.as_tensor(evaluator.run(None, {"input": x.numpy()})[0])
    assert psnr(found, network(x)) > 50  # measured: 59.8


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dynamic", [True, False])
def test_what_the_file_is(exported: Export, precision: str, dynamic: bool) -> None:
    path = exported(precision, dynamic)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (x,), (y,) = model.graph.input, model.graph.output
    assert (x.name, y.name) == ("input", "output")
    for value in (x, y):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        dims = value.type.tensor_type.shape.dim
        names = [d.dim_param or d.dim_value for d in dims]
        assert names == (["batch", 3, "height", "width"] if dynamic else [1, 3, 24, 40])
    assert {f.name for f in model.functions} == {"half_instance_norm"}
    for function in model.functions:
        assert function.domain == ops.DOMAIN
        assert {node.domain for node in function.node} == {""}
    calls = Counter((n.domain, n.op_type) for n in model.graph.node)
    assert calls["restorert", "half_instance_norm"] == 6  # 2 U-Nets of 3 levels
    assert {domain for domain, _ in calls} == {"", ops.DOMAIN}
    weights = {t.name: t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    kinds = {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}
    for name, kind in weights.items():
        # TensorRT-RTX cannot build transposed convolutions in bfloat16.
        wide = precision == "bf16" and ".up.weight" in name
        assert kind == onnx.TensorProto.DataType.Value("FLOAT" if wide else kinds[precision])
    assert read_metadata(path) == {
        "network": "hinet",
        "family": "hinet",
        "precision": precision,
        "size_multiple": 4,
        "padding_mode": "reflect",
        "in_channels": 3,
        "out_channels": 3,
        "tile": None,
        "deployed": ["drop-cancelled-bias"],
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_attributes_of_the_functions_are_the_networks(
    tmp_path: Path, exported: Export, precision: str
) -> None:
    for node in onnx.load(exported(precision)).graph.node:
        if node.domain == ops.DOMAIN:
            values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert values == pytest.approx({"eps": 1e-5, "negative_slope": 0.2})


@pytest.mark.slow
def test_another_slope_reaches_the_file(tmp_path: Path) -> None:
    net = _network(depth=2, negative_slope=0.05)
    path = rr.export_onnx(net, tmp_path / "slope.onnx", shape=(1, 3, 8, 8), dynamic=False)
    x = _picture(1, 8, 8)
    torch.testing.assert_close(_run(path, x), net(x), rtol=0, atol=1e-5)  # measured: 1.2e-7


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dynamic", [True, False])
def test_nothing_of_the_machine_is_in_the_file(
    exported: Export, repository: Path, precision: str, dynamic: bool
) -> None:
    path = exported(precision, dynamic)
    content = path.read_bytes()
    for trace in (repository, Path.home(), path.parent, sys.prefix):
        assert os.fsencode(trace) not in content
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # noise may hold any byte
    text = str(model)
    for mark in ("/", ".py", "Traceback", "pkg.torch", "stack_trace", "doc_string"):
        assert mark not in text


def test_shape_inference_knows_every_tensor(exported: Export) -> None:
    inferred = onnx.shape_inference.infer_shapes(
        onnx.load(exported("fp16")), strict_mode=True, data_prop=True
    )
    known = {value.name for value in inferred.graph.value_info}
    unknown = [o for n in inferred.graph.node for o in n.output if o not in known | {"output"}]
    assert unknown == []


@pytest.mark.slow
def test_the_function_hides_nodes(
    network: rr.networks.RestorationNetwork,
    exported: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fused = len(onnx.load(exported("fp32", dynamic=False)).graph.node)
    x = torch.zeros(1, 3, 24, 40)
    monkeypatch.setattr(ops, "half_instance_norm", ops.SPECS[0].eager)
    torch.onnx.export(
        network,
        (x,),
        tmp_path / "eager.onnx",
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    eager = len(onnx.load(tmp_path / "eager.onnx").graph.node)
    print(f"nodes: {fused} with functions, {eager} eager")  # measured: 97 and 115
    assert fused < eager


def test_inlined_form_is_equal(exported: Export, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        inlined = inline_functions(exported(precision), tmp_path / f"{precision}.onnx")
        model = onnx.load(inlined)
        assert not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        x = _picture(2, 12, 20)
        found, expected = _run(inlined, x), _run(exported(precision), x)
        # measured: equal for fp32; 91 for fp16, whose casts ONNX Runtime moves
        assert psnr(found, expected) > 80


def test_polygraphy_runs_it(network: rr.networks.RestorationNetwork, exported: Export) -> None:
    polygraphy = pytest.importorskip("polygraphy.backend.onnxrt")
    x = _picture(1, 8, 12)
    session = polygraphy.SessionFromOnnx(str(exported()), providers=["cpu"])
    with polygraphy.OnnxrtRunner(session) as runner:
        found = runner.infer({"input": x.numpy()})["output"]
    torch.testing.assert_close(torch.as_tensor(found), network(x), rtol=0, atol=1e-5)


_EXPORT = """
import sys, restorert as rr
net = rr.create_network("hinet", width=8, depth=3)
rr.export_onnx(net, sys.argv[1], precision="fp16")
"""


@pytest.mark.slow
def test_same_network_same_bytes_in_any_process(exported: Export, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    # Another folder and hash seed, since both have leaked into exports before.
    subprocess.run(
        [sys.executable, "-c", _EXPORT, str(other)],
        check=True,
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert other.read_bytes() == exported("fp16").read_bytes()


@pytest.mark.slow
def test_same_bytes_twice_in_a_process(exported: Export, tmp_path: Path) -> None:
    second = rr.export_onnx(_network(), tmp_path / "second.onnx", precision="fp16")
    assert second.read_bytes() == exported("fp16").read_bytes()


@pytest.mark.slow
def test_the_callers_network_stays_as_it_is(tmp_path: Path) -> None:
    net = _network(depth=2).train()
    net.conv_01.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for precision in ("fp32", "fp16"):
        rr.export_onnx(net, tmp_path / "a.onnx", precision=precision, dynamic=False)
        assert net.training
        assert not net.conv_01.training
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, before[name])


@pytest.mark.slow
def test_a_half_network_exports_as_fp32(tmp_path: Path) -> None:
    net = _network(depth=2)
    path = rr.export_onnx(net.half(), tmp_path / "a.onnx", shape=(1, 3, 8, 8), dynamic=False)
    kinds = {t.data_type for t in onnx.load(path).graph.initializer if len(t.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT}
    assert net.conv_01.weight.dtype == torch.float16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'; expected fp32, fp16, bf16"),
        ({"precision": "int8"}, "int8 needs an ONNX file calibrated"),
        ({"shape": (1, 3, 721, 1270)}, "multiples of 4; .* after 721x1270 is 724x1272"),
        ({"shape": (1, 1, 16, 16)}, "hinet takes 3 channels, not 1"),
        ({"shape": (3, 16, 16)}, r"is not \[N, C, H, W\]"),
        ({"shape": (1, 3, 0, 16)}, r"is not \[N, C, H, W\]"),
        ({"shape": (1, 3, -4, 16)}, r"is not \[N, C, H, W\]"),
        ({"shape": (1, 3, "4", 16)}, r"is not \[N, C, H, W\]"),
        ({"shape": (1, 3, 4.0, 16)}, r"is not \[N, C, H, W\]"),
    ],
)
@pytest.mark.parametrize("dynamic", [True, False])
def test_refused_arguments_leave_the_old_file(
    network: rr.networks.RestorationNetwork,
    tmp_path: Path,
    arguments: dict[str, Any],
    message: str,
    dynamic: bool,
) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=message) as caught:
        rr.export_onnx(network, path, dynamic=dynamic, **arguments)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [7e4, -7e4, float("inf")])
def test_a_weight_too_large_for_fp16(tmp_path: Path, value: float) -> None:
    net = _network(depth=2)
    net.last.weight[0, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"'last.weight' exceeds 65504, .* use bf16"):
        rr.export_onnx(net, tmp_path / "a.onnx", precision="fp16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing/a.onnx", "folder", "file/a.onnx"])
def test_unwritable_target(
    network: rr.networks.RestorationNetwork, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"^cannot write [^\n]*$"):
        rr.export_onnx(network, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_failure_late_in_the_export_leaves_the_old_file(
    network: rr.networks.RestorationNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as stream:
            stream.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        rr.export_onnx(network, path, shape=(1, 3, 8, 8), dynamic=False)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _foreign(**metadata: str) -> bytes:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]))
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


@pytest.mark.parametrize("suffix", [".onnx", ".json", ".onnxtxt", ".textproto", ""])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe garbage" * 20, "is not an ONNX file"),
        (b"{}", "is not an ONNX file|was not exported by restorert"),
        (b"", "is empty; export_onnx makes one"),
        (_foreign(), "was not exported by restorert; export_onnx makes one"),
        (_foreign(restorert="{"), "its record of the network is damaged"),
        (_foreign(restorert="[1]"), "its record of the network is damaged"),
        (_foreign(restorert="[" * 100_000), "its record of the network is damaged"),
    ],
)
def test_metadata_of_other_files(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_metadata_of_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot read .*: No such file or directory$"):
        read_metadata(tmp_path / "none.onnx")
    with pytest.raises(InputError, match=r"^cannot read .*: Is a directory$"):
        read_metadata(tmp_path)
    with pytest.raises(InputError, match=r"^cannot read "):
        inline_functions(tmp_path / "none.onnx", tmp_path / "out.onnx")


def test_inlining_to_nowhere(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot write "):
        inline_functions(exported(), tmp_path / "missing" / "out.onnx")


def test_truncated_file(exported: Export, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(exported().read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"is not an ONNX file|was not exported"):
        read_metadata(path)


def test_metadata_is_canonical_json(exported: Export) -> None:
    (entry,) = onnx.load(exported()).metadata_props
    assert entry.value == json.dumps(json.loads(entry.value), sort_keys=True)


@pytest.mark.slow
def test_full_size_hinet(tmp_path: Path) -> None:
    net = rr.create_network("hinet")
    path = rr.export_onnx(net, tmp_path / "hinet.onnx")
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((1, 3, 48, 80), dtype=np.float32))
    torch.testing.assert_close(_run(path, x), net(x), rtol=0, atol=1e-4)  # measured: 1.8e-7

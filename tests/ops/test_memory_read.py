"""MemoryNet's reads and prototypes beyond what every op is tested for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops import derive_prototypes, memory_read
from restorert.ops.memory_read import JUMP, MAX_PROTOTYPES, eager
from restorert.ops.memory_read import SPEC as MEMORY_READ
from restorert.ops.spec import OpCase
from restorert.testing import max_error
from restorert.testing.op_runner import LAYOUTS, in_layout

CPU = torch.device("cpu")
reference = MEMORY_READ.reference
SIZES = [(1, 1, 1), (2, 7, 3), (100, 20, 10), (MAX_PROTOTYPES, MAX_PROTOTYPES - 1, 33)]


def _inputs(case: OpCase, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return MEMORY_READ.make_inputs(case, dtype, CPU, 0)


def _wide(inputs: dict[str, Any]) -> dict[str, Any]:
    return {k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}


def _read_by_the_paper(query: list[float], memory: list[list[float]], shrink: float) -> list[float]:
    """One read of one pixel in plain numbers, with the authors' form of the hard shrink."""
    logits = [math.fsum(a * b for a, b in zip(query, row, strict=True)) for row in memory]
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    weights = [e / math.fsum(exponentials) for e in exponentials]
    weights = [max(w - shrink, 0.0) * w / (abs(w - shrink) + 1e-12) for w in weights]
    norm = max(math.fsum(abs(w) for w in weights), 1e-12)
    return [
        math.fsum(w / norm * row[c] for w, row in zip(weights, memory, strict=True))
        for c in range(len(query))
    ]


@pytest.mark.parametrize("shrink", [0.0025, 0.02])
def test_reference_is_the_papers_formula(shrink: float) -> None:
    inputs = _wide(_inputs(OpCase((1, 3, 3, 5), std=2.0)))
    found = reference(**inputs, shrink=shrink)
    query = inputs["x"][0].flatten(1).T.tolist()
    for name, result in (("part", found[2]), ("instance", found[1]), ("semantic", found[0])):
        query = [_read_by_the_paper(pixel, inputs[name].tolist(), shrink) for pixel in query]
        expected = torch.tensor(query, dtype=torch.float64).T.reshape(3, 3, 5)
        # The authors' 1e-12 takes 1e-12 / (weight - shrink) of a weight.
        torch.testing.assert_close(result[0], expected, rtol=0, atol=1e-8)


def test_eager_is_the_reference() -> None:
    inputs = _wide(_inputs(OpCase((2, 3, 17, 23))))
    for found, wanted in zip(eager(**inputs), reference(**inputs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


def _distance_from_threshold(inputs: dict[str, Any], shrink: float = 0.0025) -> Tensor:
    """Per pixel, over all weights of all reads in float64: the smallest |weight / shrink - 1|."""
    wide = _wide(inputs)
    query = wide["x"].movedim(1, -1)
    distance = torch.full(query.shape[:-1], math.inf, dtype=torch.float64)
    for name in ("part", "instance", "semantic"):
        weights = torch.softmax(query @ wide[name].T, dim=-1)
        distance = torch.minimum(distance, (weights / shrink - 1).abs().amin(dim=-1))
        kept = weights * (weights > shrink)
        query = kept / kept.sum(dim=-1, keepdim=True) @ wide[name]
    return distance


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "limit"),
    # measured worst: 3.1e-7, 2.5e-4, 2.0e-3
    [(torch.float32, 1e-6), (torch.float16, 3e-4), (torch.bfloat16, 2.5e-3)],
)
def test_strict_away_from_the_threshold(
    dtype: torch.dtype, limit: float, layout: torch.memory_format
) -> None:
    """Within 1e-5 of the threshold rounding decides; there are few such pixels, and none is far."""
    for mean, std in ((0.5, 0.3), (0.5, 1.0), (0.0, 3.0)):
        inputs = in_layout(_inputs(OpCase((1, 3, 180, 320), mean=mean, std=std), dtype), layout)
        near = _distance_from_threshold(inputs) <= 1e-5
        assert near.double().mean() <= 2e-3  # measured: at most 4.2e-4 in 720x1280
        pairs = zip(memory_read(**inputs), reference(**_wide(inputs)), strict=True)
        for found, expected in pairs:
            error = (found.double() - expected).abs().amax(dim=1)
            assert error[~near].max() <= limit
            assert error.max() <= JUMP + limit


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4, 6, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_of_prototypes(
    sizes: tuple[int, int, int], channels: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 9, 31, generator=generator).contiguous(memory_format=layout)
    memories = [torch.randn(n, channels, generator=generator) for n in sizes]
    found = memory_read(x, *memories, shrink=0.0)  # no threshold, so no pixel near it
    expected = reference(x.double(), *(m.double() for m in memories), shrink=0.0)
    for a, b in zip(found, expected, strict=True):
        # Prototypes this large make softmax steep. Measured worst: 6.2e-6, with 16 channels 1.2e-5.
        assert max_error(a, b) <= 3e-5


def test_closed_forms() -> None:
    inputs = _inputs(OpCase((1, 3, 5, 7)))
    memories = [inputs[name] for name in ("part", "instance", "semantic")]
    # A query of zeros weighs all alike: the mean of the parts, when 1/100 is above the threshold.
    part = memory_read(torch.zeros(1, 3, 5, 7), *memories)[2]
    mean = memories[0].mean(dim=0)[:, None, None].expand(3, 5, 7)
    torch.testing.assert_close(part[0], mean, rtol=0, atol=1e-7)
    # When it is not, nothing is left, and 0 / 1e-12 is 0.
    for out in memory_read(torch.zeros(1, 3, 5, 7), *memories, shrink=0.2):
        assert torch.equal(out, torch.zeros_like(out))
    # A single prototype is always read.
    for out in memory_read(inputs["x"], *(m[:1] for m in memories)):
        assert out.isfinite().all()
    one = memory_read(inputs["x"], *(m[:1] for m in memories))[0]
    torch.testing.assert_close(one, memories[2][:1, :, None, None].expand_as(one), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_queries_stay_in_float32(dtype: torch.dtype) -> None:
    """The second read takes what the first computed, not what it stored."""
    inputs = _inputs(OpCase((1, 3, 33, 40)), dtype)
    inputs["instance"] = inputs["instance"] * 100  # makes the second read feel its query's rounding
    found = memory_read(**inputs)
    expected = reference(**_wide(inputs))
    assert max_error(found[1], expected[1]) <= torch.finfo(dtype).eps
    rounded = expected[2].to(dtype).double()
    query = rounded.movedim(1, -1) @ inputs["instance"].double().T
    coarse = torch.softmax(query, dim=-1)
    coarse = coarse * (coarse > 0.0025)
    coarse = (coarse / coarse.sum(-1, keepdim=True)) @ inputs["instance"].double()
    assert max_error(coarse.movedim(-1, 1), expected[1]) > 2 * torch.finfo(dtype).eps


def _weights(classes: int, prototypes: int, parts: int, channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (classes * prototypes * parts, channels),
        (parts, parts, 1),
        (parts,),
        (prototypes, prototypes, 1),
        (prototypes,),
    ]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("channels", [1, 3, 10])
def test_derived_prototypes_number_by_number(channels: int) -> None:
    """The authors' views and permutations, written out as indices into their flat memory."""
    classes, prototypes, parts = 10, 2, 5
    part, w_part, b_part, w_ins, b_ins = _weights(classes, prototypes, parts, channels)
    instance, semantic = derive_prototypes(part, w_part, b_part, w_ins, b_ins)
    flat = part.flatten().tolist()

    def sigmoid(v: float) -> float:
        return 1.0 / (1.0 + math.exp(-v))

    for g in range(classes * prototypes):
        for c in range(channels):
            group = flat[g * channels * parts + c * parts :][:parts]
            mixed = [
                sum(w_part[p, q, 0].item() * group[q] for q in range(parts)) + b_part[p].item()
                for p in range(parts)
            ]
            mean = sum(sigmoid(m) * v for m, v in zip(mixed, group, strict=True)) / parts
            assert instance[g, c].item() == pytest.approx(mean, abs=1e-12)
    for k in range(classes):
        for c in range(channels):
            pair = [instance[k * prototypes + t, c].item() for t in range(prototypes)]
            mixed = [
                sum(w_ins[t, u, 0].item() * pair[u] for u in range(prototypes)) + b_ins[t].item()
                for t in range(prototypes)
            ]
            mean = sum(sigmoid(m) * v for m, v in zip(mixed, pair, strict=True)) / prototypes
            assert semantic[k, c].item() == pytest.approx(mean, abs=1e-12)


def test_derived_prototypes_by_library_calls() -> None:
    """Other sizes, through a one-dimensional convolution and adaptive pooling."""
    classes, prototypes, parts, channels = 4, 3, 6, 5
    part, w_part, b_part, w_ins, b_ins = _weights(classes, prototypes, parts, channels)
    grouped = part.view(classes * prototypes, channels, parts).permute(0, 2, 1)
    scaled = torch.sigmoid(F.conv1d(grouped, w_part, b_part)) * grouped
    instance = F.adaptive_avg_pool1d(scaled.permute(0, 2, 1), 1).squeeze(-1)
    pairs = instance.view(classes, prototypes, channels)
    scaled = torch.sigmoid(F.conv1d(pairs, w_ins, b_ins)) * pairs
    semantic = F.adaptive_avg_pool1d(scaled.permute(0, 2, 1), 1).squeeze(-1)
    found = derive_prototypes(
        part, w_part[..., 0], b_part, w_ins[..., 0], b_ins,
        classes=classes, prototypes=prototypes, parts=parts,
    )  # fmt: skip
    torch.testing.assert_close(found, (instance, semantic), rtol=0, atol=1e-14)


def test_derive_prototypes_misuse_is_one_line() -> None:
    part, w_part, b_part, w_ins, b_ins = _weights(10, 2, 5, 3)
    good = {
        "part": part, "reweight_part_weight": w_part, "reweight_part_bias": b_part,
        "reweight_instance_weight": w_ins, "reweight_instance_bias": b_ins,
    }  # fmt: skip
    for name, value in (
        ("part", part[:99]),
        ("part", part[0]),
        ("reweight_part_weight", w_ins),
        ("reweight_part_bias", b_ins),
        ("reweight_instance_weight", w_part),
        ("reweight_instance_bias", b_part),
    ):
        with pytest.raises(InputError, match=f"derive_prototypes: argument '{name}'") as caught:
            derive_prototypes(**(good | {name: value}))
        assert "\n" not in str(caught.value)


X = torch.zeros(1, 3, 4, 5)
M = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], M, M, M), r"argument 'x' has 3 dimensions; expected \[N, C, H, W\]"),
        ((torch.zeros(1, 17, 2, 2), M, M, M), r"argument 'x' has 17 channels; expected 1 to 16"),
        ((X[:, :0], M[:, :0], M, M), r"argument 'x' has 0 channels; expected 1 to 16"),
        ((X, M[:, :2], M, M), r"argument 'part' has shape \[4, 2\]; expected \[prototypes, 3\]"),
        ((X, M, M[0], M), r"argument 'instance' has shape \[3\]; expected \[prototypes, 3\]"),
        ((X, M, M, M[:0]), r"argument 'semantic' has 0 prototypes; expected 1 to 512"),
        ((X, torch.zeros(513, 3), M, M), r"argument 'part' has 513 prototypes; expected 1 to 512"),
        ((X.int(), M, M, M), r"argument 'x' has dtype int32"),
        ((X.half(), M.half(), M, M), r"argument 'part' has dtype float16; expected float32"),
        ((X, M, M, M, -0.1), r"argument 'shrink' is -0.1; expected a finite float32 >= 0"),
        ((X, M, M, M, math.nan), r"argument 'shrink' is nan"),
        ((X, M, M.to_sparse(), M), r"argument 'instance' is sparse; expected a dense tensor"),
        ((X, M, M, M.to("meta")), r"argument 'semantic' is on meta; expected cpu"),
    ],
)
def test_misuse_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        memory_read(*arguments)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("memory_read: ")

"""SRN-Deblur as jiangsutx/SRN-Deblur computes it, in TensorFlow.

Needs tensorflow-cpu and tf_slim beside torch. Also writes, with TensorFlow's own Saver, the small
checkpoint that tests/weights reads.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow.compat.v1 as tf
import tf_slim
import torch
from seeded import SIZES, figures, seeded_picture, seeded_state_dict

CHECKPOINT = Path(__file__).parents[2] / "tests/weights/data/srn-miniature"
GAIN = 0.8  # of the seeded weights: three scales of residual blocks, and no norm
VARIANTS = {"srn-color": "color", "srn-gray": "gray", "srn-lstm": "lstm"}


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """Every scale's output of every variant at every size."""
    write_checkpoint()
    model = _official_model(checkout)
    kept: dict[str, np.ndarray] = {}
    for name, kind in VARIANTS.items():
        for height, width in SIZES:
            state, outputs = _run(model, kind, seeded_picture(height, width))
            kept[f"{name}/names"] = np.array(sorted(state))
            kept[f"{name}/parameters"] = np.array(sum(v.numel() for v in state.values()))
            for scale, output in enumerate(outputs, 1):
                for what, values in figures(output).items():
                    kept[f"{name}/{height}x{width}/{scale}/{what}"] = values
    return kept


def _official_model(checkout: Path) -> ModuleType:
    """Their model.py under a TensorFlow that still has what it imports."""
    tf.disable_v2_behavior()
    contrib = ModuleType("tensorflow.contrib")
    contrib.slim = tf_slim
    contrib.layers = SimpleNamespace(xavier_initializer=tf_slim.xavier_initializer)
    tf.contrib = contrib
    replaced = {
        "tensorflow": tf,
        "tensorflow.contrib": contrib,
        "tensorflow.contrib.slim": tf_slim,
        "scipy": ModuleType("scipy"),
        "scipy.misc": ModuleType("scipy.misc"),
    }
    before = {name: sys.modules.get(name) for name in replaced}
    sys.modules.update(replaced)
    sys.path.insert(0, str(checkout))
    try:
        model = importlib.import_module("models.model")
    finally:
        sys.path.remove(str(checkout))
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    cell = model.BasicConvLSTMCell
    # Python 2 divided whole numbers to whole numbers.
    model.BasicConvLSTMCell = lambda shape, *rest: cell([int(size) for size in shape], *rest)
    return model


def _run(
    model: ModuleType, kind: str, picture: torch.Tensor
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """(seeded weights under our names, the three scales' pictures as [1, 3, h, w])."""
    fed = picture.permute(0, 2, 3, 1) if kind == "color" else picture.permute(1, 2, 3, 0)
    deblur = model.DEBLUR.__new__(model.DEBLUR)
    deblur.args = SimpleNamespace(model=kind)
    deblur.n_levels, deblur.scale, deblur.chns = 3, 0.5, fed.shape[-1]
    deblur.batch_size = fed.shape[0]
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = tf.placeholder(tf.float32, list(fed.shape))
        outputs = deblur.generator(inputs, reuse=False)
        variables = tf.global_variables()
        state = _load_seeded(session, variables)
        results = session.run(outputs, {inputs: fed.numpy()})
    order = (0, 3, 1, 2) if kind == "color" else (3, 0, 1, 2)
    return state, [torch.from_numpy(result).permute(order).contiguous() for result in results]


def _load_seeded(session: Any, variables: list[Any]) -> dict[str, torch.Tensor]:
    """Give the variables the seeded weights; returns these under our names."""
    # HWIO -> OIHW, and HWOI -> IOHW where the convolution is transposed.
    shapes = {_our_name(v): tuple(v.shape.as_list())[::-1] for v in variables}
    shapes = {n: (*s[:2], s[3], s[2]) if len(s) == 4 else s for n, s in shapes.items()}
    state = seeded_state_dict(shapes, gain=GAIN)
    for variable in variables:
        value = state[_our_name(variable)].numpy()
        variable.load(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value, session)
    return state


def _our_name(variable: Any) -> str:
    name = variable.op.name.removeprefix("g_net/")
    name = name.replace("/weights", "/weight").replace("/biases", "/bias")
    return name.replace("/", ".")


def write_checkpoint() -> None:
    """An srn-lstm of width 1, with Adam's slots of its LSTM and what counts the steps."""
    tf.disable_v2_behavior()
    widths = {1: 1, 2: 2, 3: 4}
    with tf.Graph().as_default(), tf.Session() as session:
        shapes: dict[str, tuple[int, ...]] = {
            "enc1_1": (5, 5, 2, 1),
            "enc2_1": (5, 5, 1, 2),
            "enc3_1": (5, 5, 2, 4),
            "convLSTM/LSTM_conv": (3, 3, 8, 16),
            "dec2_4": (4, 4, 2, 4),
            "dec1_4": (4, 4, 1, 2),
            "dec1_0": (5, 5, 1, 1),
        }
        for level, width in widths.items():
            blocks = [f"enc{level}_{n}" for n in (2, 3, 4)] + [f"dec{level}_{n}" for n in (1, 2, 3)]
            shapes |= {f"{b}/conv{n}": (5, 5, width, width) for b in blocks for n in (1, 2)}
        for name, shape in shapes.items():
            outputs = shape[2] if name in ("dec2_4", "dec1_4") else shape[3]
            tf.get_variable(f"g_net/{name}/weights", shape)
            tf.get_variable(f"g_net/{name}/biases", (outputs,))
        variables = tf.global_variables()
        trained = [v for v in variables if "LSTM" in v.op.name]
        loss = tf.add_n([tf.reduce_sum(v * v) for v in trained])
        steps = tf.Variable(0, dtype=tf.int32, trainable=False)  # unnamed, as theirs
        train = tf.train.AdamOptimizer(0.0).minimize(loss, steps, trained)
        session.run(tf.global_variables_initializer())
        session.run(train)
        _load_seeded(session, variables)
        CHECKPOINT.parent.mkdir(exist_ok=True)
        tf.train.Saver().save(
            session, str(CHECKPOINT), write_meta_graph=False, latest_filename="latest"
        )
    (CHECKPOINT.parent / "latest").unlink()

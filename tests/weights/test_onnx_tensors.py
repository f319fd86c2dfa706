"""ONNX files: tensors come out as the format says, and whatever is wrong ends in one sentence."""

from __future__ import annotations

import numpy as np
import onnx_files as made
import pytest
import torch
from onnx_files import model, node, part, tensor

from urst_tiles import weights
from urst_tiles.errors import BadWeights

WEIGHT = np.arange(-6, 6, dtype=np.int8).reshape(3, 2, 2)
SCALE = np.array([0.5, 0.25, 2.0], np.float32)
ZERO = np.array([1, 0, -1], np.int8)


def read(content, tmp_path):
    (tmp_path / "a.onnx").write_bytes(content)
    return weights.load(tmp_path / "a.onnx")


def quantised(weight=WEIGHT, scale=SCALE, zero=ZERO, inputs=("w", "s", "z"), **attributes):
    tensors = [tensor(n, t) for n, t in (("w", weight), ("s", scale), ("z", zero)) if t is not None]
    return model(tensors, [node("DequantizeLinear", inputs, "y", **attributes)])


def test_tensors_of_real_numbers_are_read(tmp_path):
    state = {
        name: np.linspace(0, 1, 6).reshape(2, 3).astype(name) for name in ("float32", "float64", "float16")
    }
    state |= {"scalar": np.float32(3), "empty": np.zeros((0, 2), np.float32)}
    got = read(made.plain(state | {"shape": np.array([1, 2])}), tmp_path)
    assert set(got) == set(state)
    assert all(np.array_equal(got[name].numpy(), values) for name, values in state.items())


def test_shapes_may_be_packed_and_floats_listed(tmp_path):
    listed = made.number(1, 2) + made.number(2, 1) + part(8, "b") + part(4, np.float32([5, 6]).tobytes())
    got = read(model([tensor("a", np.ones((2, 3), np.float32), packed=True), listed]), tmp_path)
    assert got["a"].shape == (2, 3) and got["b"].tolist() == [5, 6]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_integers_are_dequantised_along_an_axis(axis, tmp_path):
    scale, zero = (values[: WEIGHT.shape[axis]] for values in (SCALE, ZERO))
    shape = [1, 1, 1]
    shape[axis] = -1
    want = (WEIGHT.astype(float) - zero.reshape(shape)) * scale.reshape(shape)
    got = read(quantised(scale=scale, zero=zero, axis=axis), tmp_path)
    assert set(got) == {"w"} and got["w"].dtype == torch.float32
    assert np.array_equal(got["w"].numpy(), want)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_integers_are_dequantised_as_a_whole(shape, tmp_path):
    scale, zero = np.full(shape, 0.5, np.float32), np.full(shape, 3, np.int8)
    assert np.array_equal(read(quantised(scale=scale, zero=zero), tmp_path)["w"], (WEIGHT - 3.0) / 2)
    assert np.array_equal(
        read(quantised(scale=scale, zero=None, inputs=("w", "s")), tmp_path)["w"], WEIGHT / 2
    )


def test_features_that_are_quantised_leave_no_tensor(tmp_path):
    tensors = [tensor("s", np.float32(0.5)), tensor("z", np.int8(0)), tensor("kept", np.ones(2, np.float32))]
    nodes = [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "y")]
    assert set(read(model(tensors, nodes), tmp_path)) == {"kept"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no ONNX model"),
        (b"PK\3\4 something else", "it is no ONNX model"),
        (b"\x89PNG\r\n\x1a\n", "it is no ONNX model"),
        (b"<html></html>", "it is no ONNX model"),
        (made.number(7, 5), "a number where a message is expected"),
        (part(7, b"") * 2, "it is no ONNX model"),
        (b"\xff" * 20, "a number has no end"),
        (quantised()[:-1], "cut short"),
        (quantised(scale=None), "w is to be dequantised, but its scale is not in the file"),
        (quantised(inputs=("w",)), "its scale is not in the file"),
        (quantised(scale=SCALE[:2], zero=ZERO[:2], axis=0), "has 2 scales and 2 zero points"),
        (quantised(zero=ZERO[:2], axis=0), "has 3 scales and 2 zero points"),
        (quantised(axis=3), r"w has a scale of shape \(3,\), which is not read"),
        (quantised(scale=np.ones((3, 2), np.float32), axis=0), r"w has a scale of shape \(3, 2\)"),
        (model([tensor("a", np.zeros(2, np.float32)) + made.number(1, 2**62)]), "has 8 bytes of numbers"),
        (model([tensor("a", np.zeros(2, np.float32)) + made.number(1, -1)]), "has 8 bytes of numbers"),
        (model([tensor("a", np.zeros(2, np.float32)) + made.number(2, 8)]), "a has numbers of type 8"),
        (model([tensor("a", np.zeros(2, np.float32)) + made.number(14, 1)]), "a is in another file"),
        (model([tensor(b"\xff", np.zeros(2, np.float32))]), "decode"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(content, message, tmp_path):
    with pytest.raises(BadWeights, match=rf"a\.onnx holds no plain tensors: .*{message}"):
        read(content, tmp_path)


def test_damaged_files_raise_nothing_else(tmp_path):
    whole, random = quantised(axis=0), np.random.default_rng(0)
    for trial in range(400):
        content = bytearray(whole[: random.integers(len(whole))] if trial % 4 == 0 else whole)
        for _ in range(random.integers(1, 4)):
            if content:
                content[random.integers(len(content))] = random.integers(256)
        try:
            got = read(content, tmp_path)
        except BadWeights:
            continue
        assert all(isinstance(values, torch.Tensor) for values in got.values())

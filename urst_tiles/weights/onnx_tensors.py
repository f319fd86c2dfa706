"""The weights in an ONNX file, without the package onnx: its tensors are read, and none of its nodes is run.

An ONNX file is a message in the wire format of protocol buffers [1], with the fields of [2]. Networks for
phones store weights as integers, from which nodes ``DequantizeLinear`` [3] make real numbers; here this is
done once, as the file is read.

References
----------
1. protobuf.dev/programming-guides/encoding: keys, varints and lengths.
2. github.com/onnx/onnx, ``onnx/onnx.proto``: ModelProto, GraphProto, NodeProto, TensorProto.
3. onnx.ai/onnx/operators/onnx__DequantizeLinear.html: y = (x - zero point) scale, by tensor or by axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: ``TensorProto.DataType`` -> the type of the numbers in ``raw_data``.
TYPES = {1: "<f4", 2: "|u1", 3: "|i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
FLOAT = 1
#: Kinds of fields: a varint; 8 bytes; bytes behind their length; 4 bytes.
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
#: The nodes whose scales and zero points are no weights.
QUANTISING = ("QuantizeLinear", "DequantizeLinear")

#: The values of a message's fields by number, in the order of the file: integers, or bytes.
Fields = dict[int, list[Any]]


@dataclass(frozen=True)
class Node:
    """A node of the graph: what it does, the names of its inputs, and the attribute ``axis``."""

    does: str
    inputs: tuple[str, ...]
    axis: int = 1


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of real numbers in an ONNX file by name, float32 where they were dequantised.

    Tensors of integers that no node dequantises are left out, and so are the scales and zero points.

    Raises
    ------
    ValueError : the file is no ONNX model, is damaged, or stores tensors in a way that is not read.
    """
    graphs = fields(memoryview(path.read_bytes())).get(7, [])
    if len(graphs) != 1:
        raise ValueError("it is no ONNX model")
    graph = fields(_bytes(graphs[0]))
    tensors = dict(tensor(_bytes(part)) for part in graph.get(5, []))
    nodes = [node(_bytes(part)) for part in graph.get(1, [])]
    found = {name: values for name, values in tensors.items() if values.dtype.kind == "f"}
    for step in nodes:
        if step.does in QUANTISING:
            for name in step.inputs[1:]:
                found.pop(name, None)
    for step in nodes:
        if step.does == "DequantizeLinear" and step.inputs[:1] and step.inputs[0] in tensors:
            found[step.inputs[0]] = dequantised(step, tensors)
    return {name: torch.from_numpy(np.array(values)) for name, values in found.items()}


def dequantised(step: Node, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The result [3] of a node whose inputs are all ``tensors``."""
    missing = [name for name in step.inputs if name not in tensors]
    if missing or not 2 <= len(step.inputs) <= 3:
        raise ValueError(f"{step.inputs[0]} is to be dequantised, but its scale is not in the file")
    values, scale, *zeros = (tensors[name] for name in step.inputs)
    zero = zeros[0] if zeros else np.zeros_like(scale)
    shape = [1] * values.ndim
    if scale.size != 1:
        if scale.ndim != 1 or not -values.ndim <= step.axis < values.ndim:
            raise ValueError(f"{step.inputs[0]} has a scale of shape {scale.shape}, which is not read")
        shape[step.axis] = values.shape[step.axis]
    if scale.size != math.prod(shape) or zero.size != scale.size:
        counts = f"{scale.size} scales and {zero.size} zero points"
        raise ValueError(f"{step.inputs[0]} of shape {values.shape} has {counts}")
    offset = values.astype(np.float64) - zero.reshape(shape)
    return np.asarray(offset * scale.astype(np.float64).reshape(shape), np.float32)


def node(data: memoryview) -> Node:
    """A NodeProto [2]."""
    parts = fields(data)
    does = "".join(_text(part) for part in parts.get(4, [])[-1:])
    axis = 1
    for attribute in (fields(_bytes(part)) for part in parts.get(5, [])):
        if _text(attribute.get(1, [b""])[-1]) == "axis":
            value = attribute.get(3, [0])[-1]
            axis = value - 2**64 if isinstance(value, int) and value >= 2**63 else value
    if not isinstance(axis, int):
        raise ValueError(f"a node {does} has an axis that is no number")
    return Node(does, tuple(_text(part) for part in parts.get(1, [])), axis)


def tensor(data: memoryview) -> tuple[str, NDArray[Any]]:
    """Name and values of a TensorProto [2]."""
    parts = fields(data)
    name = _text(parts.get(8, [b""])[-1])
    kind = parts.get(2, [0])[-1]
    if kind not in TYPES:
        raise ValueError(f"{name or 'a tensor'} has numbers of type {kind}, which is not read")
    if parts.get(13) or parts.get(14, [0])[-1] != 0:
        raise ValueError(f"{name or 'a tensor'} is in another file")
    shape = tuple(size for part in parts.get(1, []) for size in _integers(part))
    numbers = 9 if 9 in parts or kind != FLOAT else 4  # raw_data, or float_data
    content = b"".join(_bytes(part) for part in parts.get(numbers, []))
    type_ = np.dtype(TYPES[kind])
    if len(content) != math.prod(shape) * type_.itemsize:
        raise ValueError(f"{name or 'a tensor'} of shape {shape} has {len(content)} bytes of numbers")
    return name, np.frombuffer(content, type_).reshape(shape)


# The wire format [1]


def fields(data: memoryview) -> Fields:
    """The fields of a message; ValueError where a field runs past its end."""
    found: Fields = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            found.setdefault(number, []).append(value)
            continue
        if kind not in (EIGHT, BYTES, FOUR):
            raise ValueError(f"it is no ONNX model: a field of kind {kind}")
        size, at = varint(data, at) if kind == BYTES else ({EIGHT: 8, FOUR: 4}[kind], at)
        if size > len(data) - at:
            raise ValueError(f"it is no ONNX model, or cut short: {size} bytes, {len(data) - at} are left")
        found.setdefault(number, []).append(data[at : at + size])
        at += size
    return found


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned integer of up to 64 bits at ``at``, and the place behind it."""
    value = 0
    for k, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * k
        if byte < 128:
            return value & (2**64 - 1), at + k + 1
    raise ValueError("it is no ONNX model, or cut short: a number has no end")


def _integers(part: Any) -> Iterator[int]:
    """The integers of a repeated field: one, or many packed together."""
    if isinstance(part, int):
        yield part
        return
    at = 0
    while at < len(part):
        value, at = varint(part, at)
        yield value


def _bytes(part: Any) -> memoryview:
    """A field's value as bytes; ValueError if it is a number."""
    if isinstance(part, int):
        raise ValueError("it is no ONNX model: a number where a message is expected")
    return memoryview(part)


def _text(part: Any) -> str:
    return bytes(_bytes(part)).decode()

"""ONNX files for tests, written field by field: the wire format of protocol buffers is a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

KINDS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10, "float64": 11}


def varint(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value % 2**64)


def part(field, content):
    content = content.encode() if isinstance(content, str) else bytes(content)
    return varint(field << 3 | 2) + varint(len(content)) + content


def tensor(name, values, packed=False):
    values = np.asarray(values)
    sizes = b"".join(varint(n) for n in values.shape)
    dims = part(1, sizes) if packed else b"".join(number(1, n) for n in values.shape)
    return dims + number(2, KINDS[values.dtype.name]) + part(8, name) + part(9, values.tobytes())


def node(does, inputs, output, **attributes):
    content = b"".join(part(1, name) for name in inputs) + part(2, output) + part(4, does)
    return content + b"".join(part(5, part(1, key) + number(3, value)) for key, value in attributes.items())


def model(tensors: Sequence[bytes], nodes: Sequence[bytes] = ()) -> bytes:
    """An ONNX file: a version, and a graph of these tensors and nodes."""
    graph = b"".join(part(1, one) for one in nodes) + b"".join(part(5, one) for one in tensors)
    return number(1, 8) + part(2, "a test") + part(7, graph)


def plain(state: Mapping[str, np.ndarray]) -> bytes:
    """A file of these tensors, which are stored as they are."""
    return model([tensor(name, values) for name, values in state.items()])

"""A source as a read-only zarr array, whose store makes each chunk when it is asked for.

A chunk is (1024, 1024, channels) pixels, uncompressed; at the edges it is padded with zeros to full size, as
zarr requires. A chunk that cannot be read raises an error: for None, zarr would silently fill in zeros.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from urst_tiles.geometry import Box, ceil_div
from urst_tiles.machine import views

#: Side of a chunk in pixels.
CHUNK = 1024


class SourceStore(Store):
    """A zarr store with the keys ``zarr.json`` and ``c/<row>/<column>/0``; a source makes their values.

    Values are made on threads of this process. ``get`` returns None only for keys that the array does not
    have. The store can be pickled, as the source can.
    """

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False
    supports_listing = True

    def __init__(self, source: Any) -> None:
        super().__init__(read_only=True)
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SourceStore) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def with_read_only(self, read_only: bool = False) -> SourceStore:
        if not read_only:
            raise ValueError("a view of an image cannot be written to")
        return SourceStore(self.source)

    def _metadata(self) -> bytes:
        """The content of ``zarr.json``."""
        (h, w), channels = self.source.shape, self.source.channels
        order = {"endian": sys.byteorder}
        return json.dumps(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": [h, w, channels],
                "data_type": self.source.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK, CHUNK, channels]}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": 0,
                "codecs": [{"name": "bytes", "configuration": order}],
                "dimension_names": ["y", "x", "channel"],
                "attributes": {},
            }
        ).encode()

    def _box(self, key: str) -> Box | None:
        """The box of the chunk with this key; None if the array has no chunk of this key."""
        parts = key.split("/")
        if len(parts) != 4 or parts[0] != "c" or parts[3] != "0" or not (parts[1] + parts[2]).isdecimal():
            return None
        y, x = int(parts[1]) * CHUNK, int(parts[2]) * CHUNK
        h, w = self.source.shape
        if y >= h or x >= w or f"c/{y // CHUNK}/{x // CHUNK}/0" != key:
            return None
        return Box(y, x, min(y + CHUNK, h), min(x + CHUNK, w))

    def _chunk(self, box: Box) -> Any:
        """The bytes of a chunk, uint8, (bytes,)."""
        pixels = self.source.read(box)
        if box.shape != (CHUNK, CHUNK):
            (h, w), whole = box.shape, np.zeros((CHUNK, CHUNK, pixels.shape[2]), pixels.dtype)
            whole[:h, :w] = pixels
            pixels = whole
        return np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        from zarr.core.buffer import default_buffer_prototype

        prototype = prototype or default_buffer_prototype()
        if key == "zarr.json":
            data = np.frombuffer(self._metadata(), np.uint8)
        elif (box := self._box(key)) is not None:
            # Not on the threads of the event loop: reading may wait for zarr, which works on those.
            data = await asyncio.get_running_loop().run_in_executor(views(), self._chunk, box)
        else:
            return None
        return prototype.buffer.from_array_like(data[_span(byte_range, data.size)])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return key == "zarr.json" or self._box(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        yield "zarr.json"
        h, w = self.source.shape
        for row in range(ceil_div(h, CHUNK)):
            for column in range(ceil_div(w, CHUNK)):
                yield f"c/{row}/{column}/0"

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        names: dict[str, None] = {}
        async for key in self.list_prefix(prefix):
            names.setdefault(key[len(prefix) :].split("/", 1)[0])
        for name in names:
            yield name


def _span(part: ByteRequest | None, size: int) -> slice:
    """The slice of a value of ``size`` bytes that a request of zarr names; all of it for None."""
    if isinstance(part, RangeByteRequest):
        return slice(part.start, part.end)
    if isinstance(part, OffsetByteRequest):
        return slice(part.offset, None)
    if isinstance(part, SuffixByteRequest):
        return slice(max(0, size - part.suffix), None)
    return slice(None)


def as_zarr(source: Any) -> zarr.Array[Any]:
    """The `Source` ``source`` as a read-only zarr array, (height, width, channels)."""
    return zarr.open_array(SourceStore(source), mode="r")

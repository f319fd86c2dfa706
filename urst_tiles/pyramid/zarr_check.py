"""Check an OME-Zarr 0.5: its metadata, and that every chunk is there, has its checksum and can be decoded.

References: OME-NGFF 0.5 (2024); Zarr core 3.0 and its codecs. Shards of any program are read whose chunks are
encoded as this package encodes them; of others only the metadata is checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.pyramid.encode import codecs
from urst_tiles.pyramid.validate import few

_MISSING = (1 << 64) - 1


def zarr_problems(path: Path, deep: bool) -> tuple[list[tuple[int, int]], int, list[str]]:
    """(height, width) of each level of the OME-Zarr in a folder, how many chunks were decoded, and what is
    wrong, in sentences."""
    try:
        group = json.loads((path / "zarr.json").read_bytes())
        ome = group["attributes"]["ome"]
        scales = ome["multiscales"][0]
        names = [axis["name"] for axis in scales["axes"]]
        arrays = [(d["path"], _array(path / d["path"])) for d in scales["datasets"]]
        shapes = [(int(a["shape"][names.index("y")]), int(a["shape"][names.index("x")])) for _, a in arrays]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        return [], 0, [f"its metadata is not that of an OME-Zarr 0.5 ({error!r})"]
    problems = list(_metadata_problems(ome, scales, names, arrays, shapes))
    checker = _Checker(path, deep)
    for name, facts in arrays:
        problems += few(checker.problems(name, facts))
    return shapes, checker.done, problems


def _array(folder: Path) -> dict[str, Any]:
    facts = json.loads((folder / "zarr.json").read_bytes())
    if facts["zarr_format"] != 3 or facts["node_type"] != "array":
        raise ValueError(f"{folder.name} is no array of Zarr 3")
    return facts


def _metadata_problems(
    ome: Any, scales: Any, names: list[str], arrays: list[Any], shapes: list[Any]
) -> Iterator[str]:
    if ome.get("version") != "0.5":
        yield f"its version of OME-Zarr is {ome.get('version')!r}, not 0.5"
    for (name, facts), dataset in zip(arrays, scales["datasets"], strict=True):
        if len(facts["shape"]) != len(names):
            yield f"the array {name} has {len(facts['shape'])} axes, and {len(names)} are named"
        kinds = [one.get("type") for one in dataset.get("coordinateTransformations", ())]
        if kinds[:1] != ["scale"]:
            yield f"the level {name} has no scale"
    for above, below in zip(shapes, shapes[1:], strict=False):
        if not (below[0] <= above[0] and below[1] <= above[1] and below != above):
            yield f"a level of {below[1]} x {below[0]} follows one of {above[1]} x {above[0]}"


class _Checker:
    """Checks the chunks of arrays; ``done`` counts those that were decoded."""

    def __init__(self, path: Path, deep: bool) -> None:
        self.path, self.deep, self.done = path, deep, 0

    def problems(self, name: str, facts: Any) -> Iterator[str]:
        """What is wrong with the shards of an array."""
        try:
            (codec,) = facts["codecs"]
            inner = codec["configuration"]
            known = [one["name"] for one in inner["codecs"]] == ["bytes", "zstd", "crc32c"]
            shard, chunk = facts["chunk_grid"]["configuration"]["chunk_shape"], inner["chunk_shape"]
            known = known and facts["chunk_key_encoding"]["name"] == "default"
        except (ValueError, KeyError, TypeError):
            return
        if not known or shard[0] != facts["shape"][0] or len(shard) != 3:
            return
        rows, columns = (ceil_div(n, side) for n, side in zip(facts["shape"][1:], shard[1:], strict=True))
        for row in range(rows):
            for column in range(columns):
                place = self.path / name / "c" / "0" / str(row) / str(column)
                yield from self._shard(place, (row, column), facts, shard, chunk)

    def _shard(
        self, place: Path, at: tuple[int, int], facts: Any, shard: list[int], chunk: list[int]
    ) -> Iterator[str]:
        name = place.relative_to(self.path)
        counts = [n // m for n, m in zip(shard, chunk, strict=True)]
        size = 16 * int(np.prod(counts))
        try:
            length = place.stat().st_size
            with place.open("rb") as file:
                file.seek(max(0, length - size - 4))
                tail = file.read()
                if len(tail) != size + 4 or not _is_whole(tail):
                    yield f"the index of {name} fails its checksum"
                    return
                index = np.frombuffer(tail[:-4], "<u8").reshape(*counts, 2)
                for (c, r, k), expected in np.ndenumerate(_expected(at, counts, facts, chunk)):
                    start, count = (int(n) for n in index[c, r, k])
                    if not expected:
                        continue
                    if start == _MISSING or start + count > length - size - 4:
                        yield f"chunk {c}, {r}, {k} of {name} is missing"
                    elif self.deep and (said := self._chunk(file, start, count, facts, chunk)):
                        yield f"chunk {c}, {r}, {k} of {name} {said}"
        except OSError:
            yield f"{name} is missing"

    def _chunk(self, file: Any, start: int, count: int, facts: Any, chunk: list[int]) -> str | None:
        file.seek(start)
        data = file.read(count)
        if not _is_whole(data):
            return "fails its checksum"
        self.done += 1
        size = int(np.prod(chunk)) * np.dtype(facts["data_type"]).itemsize
        try:
            raw = codecs.zstd_decode(data[:-4], out=size)
        except Exception:  # whatever the codec raises
            return "cannot be decoded"
        return None if len(raw) == size else "has another size than it should"


def _is_whole(data: bytes) -> bool:
    return len(data) > 4 and struct.pack("<I", google_crc32c.value(data[:-4])) == data[-4:]


def _expected(at: tuple[int, int], counts: list[int], facts: Any, chunk: list[int]) -> NDArray[np.bool_]:
    """Which chunks of a shard hold pixels of the image, bool, of the shape ``counts``."""
    out = np.zeros(counts, bool)
    rest = [
        ceil_div(n, side) - i * count
        for n, side, i, count in zip(facts["shape"][1:], chunk[1:], at, counts[1:], strict=True)
    ]
    out[:, : max(0, rest[0]), : max(0, rest[1])] = True
    return out

"""A writer of OME-Zarr 0.5: a folder of arrays of Zarr 3 with shards, one array for each level.

    NAME/zarr.json                   the group, with axes, levels, size of a pixel and colours of the channels
    NAME/LEVEL/zarr.json             the array of a level, (channel, y, x)
    NAME/LEVEL/c/0/ROW/COLUMN        a shard: the chunks of a block, one for each tile and channel, and where
                                     each of them lies

Tiles are decoded, cut into channels and encoded one by one, so memory does not grow with the image. Every
chunk has a checksum. References: OME-NGFF 0.5 (2024); Zarr core 3.0; the Zarr codecs sharding-indexed, zstd
and crc32c 1.0.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div
from urst_tiles.machine import in_order
from urst_tiles.progress import Progress
from urst_tiles.pyramid.encode import ZSTD_LEVEL, codecs
from urst_tiles.pyramid.picture import Made
from urst_tiles.pyramid.pixels import StoredLevel
from urst_tiles.tiff.metadata import Info

#: The place and the size of a chunk that is not there.
_MISSING = (1 << 64) - 1

#: Names and colours of the channels as viewers show them.
_CHANNELS = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"), ("Alpha", "FFFFFF"))

#: A tile of a shard: the shard's row and column, and the tile's within the level.
_Tile = tuple[int, int]


def write_ome_zarr(
    path: Path, levels: Sequence[StoredLevel], info: Info, made: Made, progress: Progress
) -> None:
    """Write the folder ``path`` of an OME-Zarr from the finished pyramid.

    Parameters
    ----------
    info : has the size of a pixel.
    made : has what made the picture.
    progress : called with "writing" and how many shards there are.
    """
    shards = [(n, r, c) for n, level in enumerate(levels) for r, c in _shards(level)]
    with ThreadPoolExecutor(max(2, levels[0].stage.threads), "encode") as pool:
        for done, (number, row, column) in enumerate(shards, 1):
            place = path / str(number) / "c" / "0" / str(row) / str(column)
            place.parent.mkdir(parents=True, exist_ok=True)
            _write_shard(place, levels[number], row, column, pool)
            progress("writing", done, len(shards))
    for number, level in enumerate(levels):
        (path / str(number) / "zarr.json").write_text(_json(array_facts(level)))
    (path / "zarr.json").write_text(_json(group_facts(path.name, levels, info, made)))


def shard_tiles(level: StoredLevel) -> int:
    """How many tiles a shard has on a side: as many as a block."""
    return level.stage.grid.block // level.tile_side if level.stage.stage == 0 else 8


def _shards(level: StoredLevel) -> Iterator[tuple[int, int]]:
    n = shard_tiles(level)
    return ((r, c) for r in range(ceil_div(level.rows, n)) for c in range(ceil_div(level.columns, n)))


def _write_shard(place: Path, level: StoredLevel, row: int, column: int, pool: ThreadPoolExecutor) -> None:
    """Write the shard in this row and column of the level; the index of its chunks comes last."""
    n = shard_tiles(level)
    index = np.full((level.channels, n, n, 2), _MISSING, "<u8")
    tiles = [
        (r, c)
        for r in range(row * n, min(level.rows, (row + 1) * n))
        for c in range(column * n, min(level.columns, (column + 1) * n))
    ]

    def encode(tile: _Tile) -> list[bytes]:
        pixels = level.tile(*tile)
        whole = np.zeros((level.tile_side, level.tile_side, level.channels), pixels.dtype)
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        return [encode_chunk(whole[..., channel]) for channel in range(level.channels)]

    position = 0
    with place.open("wb") as file:
        for (r, c), chunks in zip(tiles, in_order(pool, encode, tiles), strict=True):
            for channel, chunk in enumerate(chunks):
                index[channel, r % n, c % n] = position, len(chunk)
                file.write(chunk)
                position += len(chunk)
        file.write(with_checksum(index.tobytes()))


def encode_chunk(plane: NDArray) -> bytes:
    """A chunk of one channel: little-endian, zstd, and the checksum."""
    raw = np.ascontiguousarray(plane.astype(plane.dtype.newbyteorder("<")))
    return with_checksum(bytes(codecs.zstd_encode(raw, level=ZSTD_LEVEL)))


def with_checksum(data: bytes) -> bytes:
    """Data and its CRC-32C behind it, little-endian."""
    return data + struct.pack("<I", google_crc32c.value(data))


def array_facts(level: StoredLevel) -> dict[str, Any]:
    """The metadata of the array of a level."""
    side, words = level.tile_side, {"name": "bytes", "configuration": {"endian": "little"}}
    shard = side * shard_tiles(level)
    sharding = {
        "chunk_shape": [1, side, side],
        "codecs": [
            words,
            {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
            {"name": "crc32c"},
        ],
        "index_codecs": [words, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [level.channels, level.height, level.width],
        "data_type": level.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [level.channels, shard, shard]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": ["c", "y", "x"],
        "attributes": {},
    }


def group_facts(name: str, levels: Sequence[StoredLevel], info: Info, made: Made) -> dict[str, Any]:
    """The metadata of the group: multiscales, omero, and what made the picture."""
    size, top = info.microns_per_pixel, int(np.iinfo(levels[0].dtype).max)
    unit = {"unit": "micrometer"} if size else {}
    y, x = size or (1.0, 1.0)
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space"} | unit for n in "yx"]
    datasets = [
        {
            "path": str(n),
            "coordinateTransformations": [{"type": "scale", "scale": [1.0, y * (1 << n), x * (1 << n)]}],
        }
        for n in range(len(levels))
    ]
    channels = [
        {
            "label": label,
            "color": colour,
            "active": label != "Alpha",
            "window": {"min": 0, "max": top, "start": 0, "end": top},
        }
        for label, colour in _CHANNELS[: levels[0].channels]
    ]
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {"name": name, "axes": axes, "datasets": datasets, "type": levels[0].stage.encoding.overviews}
        ],
        "omero": {"channels": channels, "rdefs": {"model": "color", "defaultZ": 0, "defaultT": 0}},
    }
    own = {"software": made.software, "provenance": made.provenance and json.loads(made.provenance)}
    attributes = {"ome": ome} | ({"urst_tiles": own} if made.software else {})
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"

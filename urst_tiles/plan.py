"""The plan: everything that decides the output's bytes and the run's memory, known before the first block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from urst_tiles.errors import BadPlan, DoesNotFit
from urst_tiles.geometry import Grid, ceil_div
from urst_tiles.storage.publish import megabytes

#: Resident memory of a process with torch, dask, zarr and pyvips loaded and warm, before the first pixel
#: (measured by ``benchmarks/memory.py``).
BASE_BYTES = 460 << 20

#: The same where torch has begun to work on a card: CUDA and its libraries, pinned buffers (measured by
#: ``tests/api/test_cuda_job.py`` with torch 2.11 for CUDA 13).
CARDS_BASE_BYTES = 1150 << 20

#: What torch's allocator keeps of a card in pieces that are too small to be used.
CARDS_SLACK_BYTES = 40 << 20

#: What one window costs beyond its activations: its slice of the block as bytes and as float32 planes, in and
#: out.
WINDOW_BYTES_PER_PIXEL = 36

ITEMSIZE = {"uint8": 1, "uint16": 2}

#: Bytes per raw byte that an encoder leaves, for photo-like content; only used to guess disk (a full disk is
#: survived).
EXPECTED_RATIO = {"deflate": 0.75, "lzw": 0.9, "zstd": 0.75, "jpeg": 0.2, "webp": 0.12}


@dataclass(frozen=True)
class Footprint:
    """What a network is to the rest of the house.

    ``bytes_per_pixel`` is the peak of its activations per window pixel on the device, at the plan's
    precision.
    """

    halo: int
    stride: int
    minimum: int
    bytes_per_pixel: float
    weight_bytes: int = 0


def read_bytes(grid: Grid, channels: int, dtype: str) -> int:
    """A block of ``grid`` with its halo, as it is read."""
    side = grid.block + 2 * grid.halo
    return min(side, grid.padded.y1) * min(side, grid.padded.x1) * channels * ITEMSIZE[dtype]


@dataclass(frozen=True)
class Plan:
    """A job, resolved.

    Attributes
    ----------
    grid : blocks and windows.
    footprint : the network's needs.
    seam : ``crop`` (exact), ``blend`` (overlap-add) or ``cut`` (crop with too small a halo, for comparison).
    source_channels, source_dtype, dtype : pixels in and out.
    device : ``cpu`` or ``cuda``.
    threads : torch threads of one process; part of the identity, since sums may round differently with
        another number.
    batch : windows per forward.
    in_flight : blocks at once in one process.
    encoders : threads that encode one block's tiles.
    prepare_bytes : what spooling and making the thumbnail take, before the first block.
    measure_bytes, measure_read_bytes : what measuring takes of the device, and what a task of it reads.
    measure_at_once : one forward of the whole thumbnail measures every site.
    reader_bytes, writer_bytes : what reading and writing one block take beyond its two arrays.
    identity : every fact that decides the output's bytes, by name; its hash is the fingerprint.
    """

    grid: Grid
    footprint: Footprint
    seam: Literal["crop", "blend", "cut"]
    source_channels: int
    source_dtype: str
    dtype: str
    compression: str
    quality: int
    precision: Literal["float32", "bfloat16", "float16"]
    device: str
    threads: int
    batch: int
    in_flight: int
    encoders: int
    workers: int
    prepare_bytes: int
    reader_bytes: int
    writer_bytes: int
    spool_bytes: int
    statistics: str
    measure_bytes: int
    measure_read_bytes: int
    measure_at_once: bool
    passes: int
    identity: Mapping[str, str]

    def identified(self, identity: Mapping[str, str]) -> Plan:
        """The same plan with its identity."""
        return replace(self, identity=identity)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(dict(self.identity), sort_keys=True).encode()).hexdigest()

    @property
    def window_pixels(self) -> int:
        """Of all windows of one forward."""
        h, w = self.grid.window
        return self.batch * h * w

    @property
    def activation_bytes(self) -> int:
        """What one forward takes of its device: activations and weights."""
        return int(self.window_pixels * self.footprint.bytes_per_pixel) + self.footprint.weight_bytes

    @property
    def window_bytes(self) -> int:
        """Peak memory of one forward on the CPU: activations and the windows' own copies."""
        return self.activation_bytes + self.window_pixels * WINDOW_BYTES_PER_PIXEL

    @property
    def read_bytes(self) -> int:
        """What is read for one block."""
        return read_bytes(self.grid, self.source_channels, self.source_dtype)

    @property
    def block_bytes(self) -> int:
        """Memory of one block in flight: what is read, what is made, and what writing it takes."""
        grid = self.grid
        area = min(grid.block, grid.height) * min(grid.block, grid.width)
        made = area * (self.source_channels + (self.seam == "blend") * 16) * ITEMSIZE[self.dtype]
        return self.read_bytes + made + self.writer_bytes

    @property
    def measuring_threads(self) -> int:
        """Windows measured at once: small ones keep no team of a processor's threads busy."""
        return self.in_flight if self.device == "cpu" and self.passes > 1 else 1

    @property
    def process_bytes(self) -> int:
        """Peak host memory of one worker process."""
        running = self.in_flight * self.block_bytes
        if self.device != "cpu":
            running += self.window_pixels * 12
            return CARDS_BASE_BYTES + max(self.prepare_bytes, self.reader_bytes + running)
        running += self.window_bytes
        measuring = self.measuring_threads * (self.measure_bytes + self.measure_read_bytes)
        return BASE_BYTES + max(self.prepare_bytes, self.reader_bytes + max(running, measuring))

    @property
    def peak_bytes(self) -> int:
        """Peak host memory of the whole process tree."""
        client = BASE_BYTES // 2 if self.workers > 1 else 0
        return self.workers * self.process_bytes + client

    @property
    def device_bytes(self) -> int:
        """What torch takes of the card at most, for one process, beyond CUDA's own context (0.5 to 0.8 GB on
        large cards); 0 on the CPU."""
        if self.device == "cpu":
            return 0
        return CARDS_SLACK_BYTES + max(self.activation_bytes, self.measure_bytes)

    @property
    def disk_bytes(self) -> int:
        """Expected disk for spool, parts and output together (parts go when the output is in place)."""
        raw = self.grid.height * self.grid.width * self.source_channels * ITEMSIZE[self.dtype] * 4 // 3
        encoded = int(raw * EXPECTED_RATIO[self.compression])
        return self.spool_bytes + 2 * encoded + raw // 64

    @property
    def forwards(self) -> int:
        """Forwards of one pass over the image (blending recomputes the windows that blocks share)."""
        if self.seam != "blend":
            return self.grid.window_count
        per_side = [
            ceil_div(min(n, self.grid.block), self.grid.core) + 2 for n in (self.grid.height, self.grid.width)
        ]
        return len(self.grid) * per_side[0] * per_side[1]

    def validate(self, *, memory: int | None = None, disk: int | None = None) -> None:
        """Refuse what cannot work; ``memory`` and ``disk`` are the bytes there are (None: not checked).

        Raises
        ------
        DoesNotFit : with the numbers and the knob to turn.
        BadPlan : for a compression that cannot hold the pixels.
        """
        if self.dtype == "uint16" and self.compression in ("jpeg", "webp"):
            raise BadPlan(
                f"--compression {self.compression} holds 8 bits only: add --dtype uint8 or choose deflate"
            )
        if memory is not None and self.peak_bytes > memory:
            raise DoesNotFit(
                f"the plan needs {megabytes(self.peak_bytes)} of memory and {megabytes(memory)} are allowed:"
                f" choose a smaller --tile (now {self.grid.core}), --block (now {self.grid.block})"
                f" or --workers (now {self.workers}), or raise --memory"
            )
        if disk is not None and self.disk_bytes > disk:
            raise DoesNotFit(
                f"the job needs about {megabytes(self.disk_bytes)} of disk and {megabytes(disk)} are free:"
                " make room, choose a folder on another disk with --job-dir,"
                f" or a stronger --compression (now {self.compression})"
            )

"""The plan of a job: everything that decides the bytes of the output and the memory of the run.

It is complete before the first block is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from urst_tiles.errors import BadPlan, DoesNotFit
from urst_tiles.geometry import Box, Grid, ceil_div
from urst_tiles.storage.publish import megabytes

#: Resident memory of a process with torch, dask, zarr and pyvips loaded and warm, without any pixel: 270 MB
#: with the network identity, 25 MB more with others (measured by ``benchmarks/memory_grid.py``), and some
#: that differ from machine to machine. A process that only hands out blocks takes as much.
BASE_BYTES = 356 << 20

#: The same with a build of torch for cards, whose libraries are larger, also where no card is used.
CARDS_BUILD_BASE_BYTES = 482 << 20

#: Resident memory of a process that has begun to work on a card: as above, with CUDA, the libraries of CUDA
#: and pinned buffers (measured by ``tests/api/test_cuda_job.py`` with torch 2.11 for CUDA 13).
CARDS_BASE_BYTES = 1150 << 20

#: Memory of a card that torch's allocator holds in pieces that are too small to be used.
CARDS_SLACK_BYTES = 40 << 20

#: Memory of one window before and after the network, for each of its pixels: the slice of the block; and
#: when the activations are gone, the result as float32 twice, as int32 and as uint16.
SLICE_BYTES_PER_PIXEL, RESULT_BYTES_PER_PIXEL = 6, 48

#: Memory for each pixel of a block while windows are blended: their sum in float64.
BLENDED_BYTES_PER_PIXEL = 24

#: Memory for each pixel of the thumbnail of an image with invalid pixels: what they are filled with, as
#: float32, and what it takes to make that (`urst_tiles.source.fill`).
FILL_BYTES_PER_PIXEL, FILLING_BYTES_PER_PIXEL = 12, 48

ITEMSIZE = {"uint8": 1, "uint16": 2, "float32": 4}

#: Encoded bytes for each raw byte of photographs. They only guess the disk that a job needs; a job also
#: survives a full disk.
EXPECTED_RATIO = {"deflate": 0.75, "lzw": 0.9, "zstd": 0.75, "jpeg": 0.2, "webp": 0.12}

#: The same for formats with an encoding of their own, for each raw byte of all levels; pictures have one.
FORMAT_RATIO = {
    "ome.zarr": 0.75,
    "dzi": 0.2,
    "iiif": 0.2,
    "png": 0.55,
    "jpg": 0.15,
    "webp": 0.09,
    "jp2": 0.45,
}


@dataclass(frozen=True)
class Footprint:
    """What a network needs: all that planning and running must know of it.

    Attributes
    ----------
    halo : how far beyond a pixel the network looks, in pixels.
    stride : the origins of windows must be multiples of it.
    minimum : smallest side of a window that the network accepts, in pixels.
    bytes_per_pixel : peak of the activations on the device for each pixel of a window, at the precision of
        the plan.
    weight_bytes : size of the weights at this precision.
    table_bytes : memory of a table of what the network makes of every colour, which takes its place on a CPU
        where the image is large; 0 where there is none.
    """

    halo: int
    stride: int
    minimum: int
    bytes_per_pixel: float
    weight_bytes: int = 0
    table_bytes: int = 0


def read_bytes(grid: Grid, channels: int, dtype: str) -> int:
    """The bytes of the largest block of ``grid`` with its halo, as read: ``channels`` bands of ``dtype``."""
    return prod(grid.read_shape) * channels * ITEMSIZE[dtype]


@dataclass(frozen=True)
class Plan:
    """A job in which every choice is made.

    Attributes
    ----------
    grid : how the image is cut into blocks and windows.
    footprint : what the network needs.
    seam : ``crop`` (exact), ``blend`` (overlap-add) or ``cut`` (crop with too small a halo, for comparison).
    source_channels : number of bands that are read, with validity where there is some.
    colours : number of bands that are written, without validity.
    source_colours : number of bands that are read, without validity.
    source_dtype, dtype : data types of the pixels that are read, and of those that are written.
    compression, quality : codec of the output's tiles; the quality, 1 to 100, matters to JPEG and WebP only.
    precision : number type that the network computes in.
    device : ``cpu``, ``cuda``, or ``cuda:N`` for card N.
    threads : torch threads of one process; part of the identity, since sums may round differently with
        another number.
    batch : windows in one forward pass of the network.
    in_flight : blocks that one process works on at once.
    encoders : threads that encode the tiles of one block.
    workers : worker processes on this machine; 1 if the workers are jobs of a job queue.
    base_bytes : memory of the libraries in one process.
    prepare_bytes : memory for what comes before the first block: to build the style, to unpack the source
        and to make the thumbnail.
    held_bytes : what the process of the job holds from its start to its end: the style, the metadata that the
        output takes over, and the thumbnail.
    fill_pixels : the pixels of the thumbnail from which invalid pixels are filled; 0 if all are valid.
    finish_bytes : memory to make the levels above the blocks, and to write the output.
    reader_bytes, writer_bytes : memory to read, and to write, one block, beyond the two arrays of the block.
    spool_bytes : disk for the unpacked copies of the source and the mask.
    levels : for a network that paints levels, how many there are from this one up to the coarsest; else 0.
    level : how often the image was halved for this level.
    statistics : what the statistics are measured on: ``thumbnail``, ``sampled``, ``exact``, ``local`` or
        ``tile``.
    measure_bytes : memory of the device for measuring one window, or the thumbnail at once.
    measure_read_bytes : memory of the pixels that one measuring task reads, of the image or of the thumbnail.
    measure_at_once : whether one forward pass over the whole thumbnail measures every site.
    passes : passes over the full image: that of the blocks, and those that measure.
    identity : every fact that decides the bytes of the output, by name; the fingerprint is its hash.
    wanted : the numbers of the blocks that are needed, of a level above of which a part is enough; the others
        are left black. None for all blocks.
    statistics_of : whether statistics are measured on the whole ``image``, or on the ``region`` that is made.
    format : the format of the output, by the word of ``--format``.
    predictor : whether deflate, LZW and zstd encode differences between neighbouring pixels.
    overview_resampling : how overviews are made: ``average``, ``nearest`` or ``lanczos``.
    bigtiff : whether a TIFF is a BigTIFF: ``yes``, ``no`` or ``if-needed``.
    outputs, output_pixels : with ``--each``, how many files are cut from what is made, and how many pixels
        they have together; 0 where what is made is the output.
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
    base_bytes: int
    prepare_bytes: int
    held_bytes: int
    fill_pixels: int
    finish_bytes: int
    reader_bytes: int
    writer_bytes: int
    spool_bytes: int
    levels: int
    level: int
    statistics: str
    measure_bytes: int
    measure_read_bytes: int
    measure_at_once: bool
    passes: int
    identity: Mapping[str, str]
    wanted: tuple[int, ...] | None = None
    statistics_of: Literal["image", "region"] = "image"

    def for_blocks(self, wanted: tuple[int, ...] | None) -> Plan:
        """The same plan, of which only some blocks are needed; None for all."""
        if wanted is None or len(wanted) == len(self.grid):
            return self
        return replace(self, wanted=wanted, identity={**self.identity, "wanted": f"blocks {list(wanted)}"})

    def wants(self, index: int) -> bool:
        """Whether block ``index`` is needed."""
        return self.wanted is None or index in self.wanted

    colours: int = 3
    source_colours: int = 3
    format: str = "tif"
    predictor: bool = True
    overview_resampling: str = "average"
    bigtiff: str = "yes"
    outputs: int = 0
    output_pixels: int = 0

    def identified(self, identity: Mapping[str, str]) -> Plan:
        """The same plan with another identity."""
        return replace(self, identity=identity)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the identity, in hexadecimal."""
        return hashlib.sha256(json.dumps(dict(self.identity), sort_keys=True).encode()).hexdigest()

    @property
    def measured(self) -> Box:
        """The box of the image that is measured."""
        return self.grid.made if self.statistics_of == "region" else self.grid.image

    @property
    def window_pixels(self) -> int:
        """The number of pixels of all windows in one forward pass."""
        h, w = self.grid.window
        return self.batch * h * w

    @property
    def activation_bytes(self) -> int:
        """Memory of the device for one forward pass: activations and weights."""
        return int(self.window_pixels * self.footprint.bytes_per_pixel) + self.footprint.weight_bytes

    @property
    def window_bytes(self) -> int:
        """Peak memory of one forward pass on the CPU: activations, weights and copies of the windows."""
        more = 5 * (self.read_channels - self.source_channels)  # as float32 and as it was read
        pixel = max(self.footprint.bytes_per_pixel + SLICE_BYTES_PER_PIXEL + more, RESULT_BYTES_PER_PIXEL)
        return int(self.window_pixels * pixel) + self._network_bytes

    @property
    def _network_bytes(self) -> int:
        return self.footprint.weight_bytes + self.footprint.table_bytes

    @property
    def read_channels(self) -> int:
        """How many channels a window has: those of the source and, for a network that paints levels, noise
        and the picture of the level above."""
        return self.source_channels + (self.levels > 0) + 3 * (self.levels > 1)

    @property
    def has_valid(self) -> bool:
        """Whether a channel behind the colours says how valid a pixel is."""
        return self.source_channels > self.source_colours

    @property
    def channels(self) -> int:
        """How many channels the pixels have that are made, with validity where there is some."""
        return self.colours + self.has_valid

    @property
    def read_bytes(self) -> int:
        """Memory of the pixels that are read for one block."""
        return read_bytes(self.grid, self.read_channels, self.source_dtype)

    @property
    def made_bytes(self) -> int:
        """Memory of the pixels that are made of one block."""
        return self._block_area * self.channels * ITEMSIZE[self.dtype]

    @property
    def _block_area(self) -> int:
        return prod(min(self.grid.block, side) for side in self.grid.made.shape)

    @property
    def _reading_bytes(self) -> int:
        """Memory of one block while it is read: where the image is continued by reflection, there are two
        arrays of the pixels for a moment."""
        return self.read_bytes * (1 if self.grid.padded == self.grid.image else 2)

    @property
    def blocks_bytes(self) -> int:
        """Peak memory of all blocks in flight, on the CPU.

        One block computes; meanwhile the others are read, or wait for their turn, or are written: then what
        was read of them is gone. Or all of them are written.
        """
        computing = self.read_bytes + self.made_bytes + self.window_bytes
        if self.seam == "blend":
            computing += self._block_area * BLENDED_BYTES_PER_PIXEL
        writing = self.made_bytes + self.writer_bytes
        waiting = self.read_bytes + (self.made_bytes if self.has_valid else 0)
        beside = max(self._reading_bytes, waiting, writing)
        together = self.in_flight * writing + self._network_bytes
        return max(computing + (self.in_flight - 1) * beside, together)

    @property
    def measuring_threads(self) -> int:
        """How many windows are measured at once: a small window cannot keep all threads of a CPU busy."""
        return self.in_flight if self.device == "cpu" and self.passes > 1 else 1

    @property
    def measuring_bytes(self) -> int:
        """Peak host memory of measuring; on a card it is the card's. A thumbnail is measured without reading
        the file."""
        if self.device != "cpu":
            return 0
        reading = self.reader_bytes if self.passes > 1 or self.statistics == "sampled" else 0
        return reading + self.measuring_threads * (self.measure_bytes + self.measure_read_bytes)

    @property
    def worker_bytes(self) -> int:
        """Peak host memory of what workers do, beyond libraries: blocks, and passes over the full image.

        The floats that invalid pixels are filled with are made before anything is read.
        """
        blocks = self.blocks_bytes
        if self.device != "cpu":
            writing = self.read_bytes + self.made_bytes + self.writer_bytes
            blocks = self.in_flight * writing + self.window_pixels * 12
        running = max(self.reader_bytes + blocks, self.measuring_bytes if self.passes > 1 else 0)
        return max(
            self.fill_pixels * FILL_BYTES_PER_PIXEL + running, self.fill_pixels * FILLING_BYTES_PER_PIXEL
        )

    @property
    def process_bytes(self) -> int:
        """Peak host memory of a process that does the whole job; a worker takes no more."""
        steps = self.prepare_bytes, self.measuring_bytes, self.worker_bytes, self.finish_bytes
        return self.base_bytes + self.held_bytes + max(steps)

    @property
    def peak_bytes(self) -> int:
        """Peak host memory of the whole process tree.

        The process of the job prepares before there are workers, measures a thumbnail while they are idle,
        and writes the output when they are gone.
        """
        if self.workers == 1:
            return self.process_bytes
        working = self.workers * (self.base_bytes + self.worker_bytes)
        measuring = self.workers * self.base_bytes + (self.measuring_bytes if self.passes == 1 else 0)
        steps = self.prepare_bytes, measuring, working, self.finish_bytes
        return self.base_bytes + self.held_bytes + max(steps)

    @property
    def device_bytes(self) -> int:
        """Peak memory of the card that torch takes for one process; 0 on the CPU.

        The context of CUDA comes on top, 0.5 to 0.8 GB on large cards.
        """
        if self.device == "cpu":
            return 0
        return CARDS_SLACK_BYTES + max(self.activation_bytes, self.measure_bytes)

    @property
    def parts_compression(self) -> str:
        """The compression of the blocks: that of the output, or one without loss where outputs are cut from
        them, which are then encoded once."""
        return "deflate" if self.outputs and self.compression in ("jpeg", "webp") else self.compression

    @property
    def _raw_bytes(self) -> int:
        """Bytes of the pixels of all levels of what is made, without blocks that are left black."""
        pixels = self.grid.made.area
        if self.wanted is not None:
            pixels = pixels * len(self.wanted) // len(self.grid)
        return self._level_bytes(pixels)

    def _level_bytes(self, pixels: int) -> int:
        """Bytes of so many pixels and of their overviews."""
        return pixels * self.channels * ITEMSIZE[self.dtype] * 4 // 3

    @property
    def expected_output_bytes(self) -> int:
        """A guess at the size of the output, from how photographs are compressed."""
        ratio = FORMAT_RATIO.get(self.format, EXPECTED_RATIO[self.compression])
        if self.has_valid and self.format in ("dzi", "iiif"):
            ratio = FORMAT_RATIO["png"] * 4 / 3  # tiles of PNG
        raw = self._level_bytes(self.output_pixels) if self.outputs else self._raw_bytes
        return int(raw * ratio)

    @property
    def disk_bytes(self) -> int:
        """Expected disk for unpacked copies, part files and output together.

        The part files are removed only when the output is complete.
        """
        parts = int(self._raw_bytes * EXPECTED_RATIO[self.parts_compression])
        return self.spool_bytes + parts + self.expected_output_bytes + self._raw_bytes // 64

    @property
    def forwards(self) -> int:
        """Forward passes, of one window each, that stylising the image takes.

        Blending computes the windows that several blocks share once for each of these blocks.
        """
        if self.wanted is not None and self.seam != "blend":
            return sum(len(self.grid.cores(self.grid.block_box(index))) for index in self.wanted)
        if self.seam != "blend":
            return self.grid.window_count
        per_side = [ceil_div(min(n, self.grid.block), self.grid.core) + 2 for n in self.grid.made.shape]
        blocks = len(self.grid) if self.wanted is None else len(self.wanted)
        return blocks * per_side[0] * per_side[1]

    def validate(self, *, memory: int | None = None, disk: int | None = None) -> None:
        """Refuse a plan that cannot work.

        Parameters
        ----------
        memory, disk : bytes that may be used; None to leave that check out.

        Raises
        ------
        DoesNotFit : memory or disk do not suffice; the message gives the numbers and the options to change.
        BadPlan : the compression cannot hold the pixels.
        """
        if self.dtype != "uint8" and self.compression in ("jpeg", "webp"):
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

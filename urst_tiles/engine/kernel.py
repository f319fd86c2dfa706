"""The kernel: it takes windows as NumPy arrays, and returns the stylised cores as NumPy arrays.

No other module deals with number types, memory layout, rounding and the device. Windows are uint8 or uint16,
(h, w, 3), as they were read. They are converted to float32 in 0..1, and back, on the device. The memory
format is channels_last, which arrays of shape (n, h, w, 3) already have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from urst_tiles.engine.colour_table import MOST_BANDS, STRIP, ColourTable
from urst_tiles.engine.device import _device, is_out_of_memory, release, reproducible
from urst_tiles.errors import BadPlan, DoesNotFit
from urst_tiles.geometry import Box
from urst_tiles.nets.base import LocalNet, Precision

log = logging.getLogger(__name__)

Pixels = NDArray[Any]
#: About how many pixels a network that sees one pixel at a time computes at once: they fit the cache of a
#: processor.
STRIP_PIXELS = 1 << 13

LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}

#: What 1 is in each dtype of pixels; floats are neither scaled, nor clipped, nor rounded.
UNITS = LEVELS | {np.dtype(np.float32): 1}


class Kernel:
    """A frozen network on a device.

    Parameters
    ----------
    net : the frozen network.
    device : "cpu", "cuda", or "cuda:1" and so on.
    precision : number type that the network computes in.
    out_dtype : dtype of the pixels that ``run`` returns, uint8 or uint16; or float32 for a point operation
        and for a network of floats in a unit of their own.
    looks_up : whether a table of all colours is made before the first window, where `is_looked_up` says that
        there can be one; results are the same.

    Attributes
    ----------
    splits : how often the device ran out of memory, so that the batch was halved or a window cut in two.

    Raises
    ------
    BadPlan : this machine does not have the device, or ``out_dtype`` is another type.
    """

    def __init__(
        self,
        net: LocalNet,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        out_dtype: DTypeLike = np.uint8,
        looks_up: bool = False,
    ):
        self.device = _device(device)
        self.out_dtype = np.dtype(out_dtype)
        if self.out_dtype not in (UNITS if net.pointwise or net.as_is else LEVELS):
            raise BadPlan(f"output pixels are uint8 or uint16, got {self.out_dtype}")
        self.net = net.to_precision(precision).to(self.device).eval()
        self.splits = 0
        self._tables: dict[np.dtype[Any], Pixels] = {}
        self._colours: ColourTable | None = None
        self._looks_up = looks_up

    def run(self, windows: Pixels, boxes: Sequence[Box], cores: Sequence[Box]) -> list[Pixels]:
        """Stylise windows, and return the core of each.

        Parameters
        ----------
        windows : uint8 or uint16, (n, h, w, 3).
        boxes : the box of each window in the padded image.
        cores : the part of each window to return, in the same coordinates.

        Returns
        -------
        list of arrays of ``out_dtype``, (core height, core width, bands of the network): round(clip(y, 0, 1)
        * 255) of the output y of the network, or * 65535.

        Raises
        ------
        DoesNotFit : the device has no room for a window that cannot be cut further.
        """
        crops = [core.within(box) for core, box in zip(cores, boxes, strict=True)]
        if self.net.passthrough and windows.dtype == self.out_dtype:
            return [
                np.ascontiguousarray(window[crop.slices]) for window, crop in zip(windows, crops, strict=True)
            ]
        if self.net.pointwise and self.device.type == "cpu":
            return [self._points(window[crop.slices]) for window, crop in zip(windows, crops, strict=True)]
        return self._divide(windows, list(boxes), crops, quantise=True)

    def run_unit(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """The result of a network that sees one pixel at a time, for floats (n, h, w, 3) in 0..1: float32, of
        the same shape, clipped to 0..1."""
        with torch.inference_mode():
            planes = np.ascontiguousarray(windows.transpose(0, 3, 1, 2), np.float32)
            y = self.net(torch.from_numpy(planes).to(self.device)).clamp_(0.0, 1.0)
            return self._to_host(y.permute(0, 2, 3, 1).contiguous())

    def _points(self, pixels: Pixels) -> Pixels:
        """The result of a network that sees one pixel at a time, (h, w, bands), ``out_dtype``.

        Where it sees one channel at a time, every level is computed once and then looked up; with
        ``looks_up``, every colour of 8 bits. Else strips are computed one after the other, so that all their
        numbers stay in the cache of the processor.
        """
        out = np.empty((*pixels.shape[:2], self.net.bands), self.out_dtype)
        if self.net.channelwise and pixels.dtype in LEVELS:
            tables, rows = self._table(pixels.dtype), max(1, STRIP // max(1, pixels.shape[1]))
            for y in range(0, len(pixels), rows):
                for channel, table in enumerate(tables):
                    out[y : y + rows, :, channel] = np.take(
                        table, pixels[y : y + rows, :, channel], mode="clip"
                    )
            return out
        if self._looks_up and is_looked_up(self.net, pixels.dtype, self.out_dtype):
            if self._colours is None:
                self._colours = ColourTable(self._by_strips, self.net.bands, torch.get_num_threads())
            with one_thread():
                self._colours.look_up(pixels, out)
            return out
        return self._by_strips(pixels)

    def _by_strips(self, pixels: Pixels) -> Pixels:
        """The same, computed strip by strip by one thread: to share out so little costs more than it saves,
        and encoders want the others."""
        out = np.empty((*pixels.shape[:2], self.net.bands), self.out_dtype)
        rows = max(1, STRIP_PIXELS // max(1, pixels.shape[1]))
        with one_thread():
            for y in range(0, len(pixels), rows):
                out[y : y + rows] = self._strip(pixels[y : y + rows])
        return out

    def _strip(self, pixels: Pixels) -> Pixels:
        with torch.inference_mode():
            planes = torch.from_numpy(np.ascontiguousarray(pixels[..., : self.net.reads].transpose(2, 0, 1)))[
                None
            ]
            y = self.net(planes.float().div_(UNITS[pixels.dtype]))[0]
            if self.out_dtype not in LEVELS:
                return y.numpy().transpose(1, 2, 0)
            levels = LEVELS[self.out_dtype]
            scaled = y.mul(levels).clamp_(0, levels).round_().to(torch.int32)
            return scaled.numpy().astype(self.out_dtype).transpose(1, 2, 0)

    def _table(self, dtype: np.dtype[Any]) -> Pixels:
        """What the network makes of each level of ``dtype`` in each band, (bands, levels), ``out_dtype``."""
        if dtype not in self._tables:
            levels = np.arange(LEVELS[dtype] + 1).astype(dtype)
            every = self._strip(np.repeat(levels[None, :, None], self.net.reads, 2))
            self._tables[dtype] = np.ascontiguousarray(every[0].T)
        return self._tables[dtype]

    def run_float(self, windows: Pixels, boxes: Sequence[Box]) -> list[NDArray[np.float32]]:
        """Stylise whole windows, for blending: float32, (h, w, 3) each, in units of 0..1, neither clipped nor
        rounded. ``windows`` and ``boxes`` are those of `run`."""
        whole = [box.within(box) for box in boxes]
        return self._divide(windows, list(boxes), whole, quantise=False)

    def _divide(self, windows: Pixels, boxes: list[Box], crops: list[Box], *, quantise: bool) -> list[Pixels]:
        """Run all windows at once; if the device has no room for them, run smaller parts."""
        answer = self._attempt(windows, boxes, crops, quantise)
        if answer is not None:
            return answer
        # This must lie outside the `except` block, whose traceback keeps the tensors of the attempt alive.
        release()
        self.splits += 1
        if len(boxes) > 1:
            n = len(boxes) // 2
            first = self._divide(windows[:n], boxes[:n], crops[:n], quantise=quantise)
            return first + self._divide(windows[n:], boxes[n:], crops[n:], quantise=quantise)
        log.warning("the device has no room for a window of %s; cutting it in two", boxes[0].shape)
        return [self._cut(windows[0], boxes[0], crops[0], quantise=quantise)]

    def _cut(self, window: Pixels, box: Box, crop: Box, *, quantise: bool) -> Pixels:
        """Stylise one window in two parts: each half of the crop has a smaller window around it."""
        out = np.empty((*crop.shape, self.net.bands), self.out_dtype if quantise else np.float32)
        for part in self._halves(crop):
            around = part.align(self.net.stride).grow(self.net.halo).clip(box.within(box))
            around = around.at_least(self.net.minimum, box.within(box))
            if around == box.within(box) and part == crop:
                raise DoesNotFit(_too_large(box, self.device))
            inner = window[around.slices][None]
            absolute = around.shift(box.y0, box.x0)
            result = self._divide(inner, [absolute], [part.within(around)], quantise=quantise)
            out[part.within(crop).slices] = result[0]
        return out

    def _halves(self, crop: Box) -> list[Box]:
        """The two halves of ``crop``, cut across the longer side at a multiple of the stride.

        It is not cut if it is too short for that, or if a cut would change the result.
        """
        (h, w), stride = crop.shape, self.net.stride
        if not self.net.splittable or max(h, w) <= stride:
            return [crop]
        if h >= w:
            middle = (crop.y0 + h // 2) // stride * stride
            middle = middle if middle > crop.y0 else (crop.y0 // stride + 1) * stride
            halves = [Box(crop.y0, crop.x0, middle, crop.x1), Box(middle, crop.x0, crop.y1, crop.x1)]
        else:
            middle = (crop.x0 + w // 2) // stride * stride
            middle = middle if middle > crop.x0 else (crop.x0 // stride + 1) * stride
            halves = [Box(crop.y0, crop.x0, crop.y1, middle), Box(crop.y0, middle, crop.y1, crop.x1)]
        return [half for half in halves if half.area]

    def _attempt(
        self, windows: Pixels, boxes: list[Box], crops: list[Box], quantise: bool
    ) -> list[Pixels] | None:
        """The result, or None if the device ran out of memory."""
        try:
            with torch.inference_mode(), reproducible(self.device):
                x = to_tensor(windows, self.device)
                y = self.net(x, boxes, crops) if self.net.selective else self.net(x, boxes)
                del x
                return [
                    self._download(image[:, crop.slices[0], crop.slices[1]], quantise)
                    for image, crop in zip(y, crops, strict=True)
                ]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _download(self, y: Tensor, quantise: bool) -> Pixels:
        """Bring float32 (3, h, w) from the device to the host as (h, w, 3).

        With ``quantise`` it becomes ``out_dtype``, rounded half to even; else it stays as it is.
        """
        y = y.permute(1, 2, 0)
        if not quantise or self.out_dtype not in LEVELS:
            return self._to_host(y.contiguous())
        levels = LEVELS[self.out_dtype]
        scaled = (y * levels).clamp_(0, levels).round_()
        if self.out_dtype == np.uint8:
            return self._to_host(scaled.to(torch.uint8).contiguous())
        # By way of int32, since not every device casts to uint16.
        return self._to_host(scaled.to(torch.int32).contiguous()).astype(np.uint16)

    def _to_host(self, values: Tensor) -> Pixels:
        """A NumPy array of the values, in memory of the host."""
        if self.device.type != "cuda":
            return values.numpy()
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return host.numpy()


def is_looked_up(net: LocalNet, dtype: DTypeLike, out_dtype: DTypeLike) -> bool:
    """Whether pixels can be looked up in a table of all colours, on a CPU: those of a point operation on red,
    green and blue of 8 bits, whose results have 8 bits."""
    if not net.pointwise or net.channelwise or net.passthrough or net.as_is:
        return False
    return np.dtype(dtype) == np.dtype(out_dtype) == np.uint8 and net.reads == 3 and net.bands <= MOST_BANDS


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def to_tensor(windows: Pixels, device: torch.device) -> Tensor:
    """Convert windows, uint8 or uint16 (n, h, w, 3), to a tensor on ``device``.

    The tensor is float32, (n, 3, h, w), in 0..1, with the memory format channels_last.
    """
    host = torch.from_numpy(np.require(windows, requirements=["C", "W"]))
    if device.type == "cuda":
        # From pinned pages the copy runs beside the kernels of other streams. It is in the same stream as the
        # kernels that follow, so no event is needed.
        host = host.pin_memory().to(device, non_blocking=True)
    # The strides of a new tensor depend on the shape alone. Those of a view may differ where a side is 1, and
    # torch would then choose other kernels.
    x = torch.empty(host.shape, dtype=torch.float32, device=device)
    return x.copy_(host).div_(UNITS[windows.dtype]).permute(0, 3, 1, 2)


def _too_large(box: Box, device: torch.device) -> str:
    h, w = box.shape
    return (
        f"a window of {w} x {h} px does not fit the memory of {device} and cannot be cut further;"
        " make --tile smaller"
    )

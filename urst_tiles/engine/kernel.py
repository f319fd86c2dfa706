"""Numpy windows in, stylised numpy cores out: the one place that knows types, layout, rounding and the
device.

Windows are uint8 or uint16, (h, w, 3), as they were read. Conversion to float32 in 0..1 and back happens on
the device. Memory format is channels_last, which the (n, h, w, 3) arrays already have.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from urst_tiles.engine.device import _device, is_out_of_memory, release, reproducible
from urst_tiles.errors import BadPlan, DoesNotFit
from urst_tiles.geometry import Box
from urst_tiles.nets.base import LocalNet, Precision

log = logging.getLogger(__name__)

Pixels = NDArray[Any]
LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


class Kernel:
    """A frozen network on a device.

    Parameters
    ----------
    net : as loaded; it is copied to the device, not changed.
    device : "cpu", "cuda", "cuda:1", ...
    precision : what the network computes in; "float32" also switches TF32 off for its run.
    out_dtype : uint8 or uint16 of what ``run`` returns.

    Attributes
    ----------
    splits : how often a device out of memory was answered by halving the batch or cutting a window in two.
    """

    def __init__(
        self,
        net: LocalNet,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        out_dtype: DTypeLike = np.uint8,
    ):
        self.device = _device(device)
        self.out_dtype = np.dtype(out_dtype)
        if self.out_dtype not in LEVELS:
            raise BadPlan(f"output pixels are uint8 or uint16, got {self.out_dtype}")
        self.net = net.to_precision(precision).to(self.device).eval()
        self.splits = 0

    def run(self, windows: Pixels, boxes: Sequence[Box], cores: Sequence[Box]) -> list[Pixels]:
        """Stylise windows and keep their cores.

        Parameters
        ----------
        windows : uint8 or uint16, (n, h, w, 3).
        boxes : where each lies in the padded image.
        cores : the part of each to keep, in the same coordinates.

        Returns
        -------
        list of ``out_dtype`` (core height, core width, 3): round(clip(y, 0, 1) * 255), or * 65535.
        """
        crops = [core.within(box) for core, box in zip(cores, boxes, strict=True)]
        if self.net.passthrough and windows.dtype == self.out_dtype:
            return [
                np.ascontiguousarray(window[crop.slices]) for window, crop in zip(windows, crops, strict=True)
            ]
        return self._divide(windows, list(boxes), crops, quantise=True)

    def run_float(self, windows: Pixels, boxes: Sequence[Box]) -> list[NDArray[np.float32]]:
        """Whole windows as float32 (h, w, 3) in 0..1 units, neither clipped nor rounded: for blending."""
        whole = [box.within(box) for box in boxes]
        return self._divide(windows, list(boxes), whole, quantise=False)

    def _divide(self, windows: Pixels, boxes: list[Box], crops: list[Box], *, quantise: bool) -> list[Pixels]:
        """Run all at once; where the device has no room for that, half of them, then halves of one."""
        answer = self._attempt(windows, boxes, crops, quantise)
        if answer is not None:
            return answer
        # Out of the `except` block by now: its traceback would have kept the failed tensors alive.
        release()
        self.splits += 1
        if len(boxes) > 1:
            n = len(boxes) // 2
            first = self._divide(windows[:n], boxes[:n], crops[:n], quantise=quantise)
            return first + self._divide(windows[n:], boxes[n:], crops[n:], quantise=quantise)
        log.warning("the device has no room for a window of %s; cutting it in two", boxes[0].shape)
        return [self._cut(windows[0], boxes[0], crops[0], quantise=quantise)]

    def _cut(self, window: Pixels, box: Box, crop: Box, *, quantise: bool) -> Pixels:
        """One window in two parts, each part of the crop with its own, smaller window."""
        out = np.empty((*crop.shape, 3), self.out_dtype if quantise else np.float32)
        for part in self._halves(crop):
            around = part.align(self.net.stride).grow(self.net.halo).clip(box.within(box))
            around = around.at_least(self.net.minimum, box.within(box))
            if around == box.within(box) and part == crop:
                raise DoesNotFit(_too_large(box, self.device))
            inner = window[around.slices][None]
            place = around.shift(box.y0, box.x0)
            result = self._divide(inner, [place], [part.within(around)], quantise=quantise)
            out[part.within(crop).slices] = result[0]
        return out

    def _halves(self, crop: Box) -> list[Box]:
        """``crop`` cut across its longer side on the stride; itself where that is too short, or cutting would
        change the result."""
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
        """The result, or None where the device ran out of memory."""
        try:
            with torch.inference_mode(), reproducible(self.device):
                x = to_tensor(windows, self.device)
                y = self.net(x, boxes, crops) if self.net.selective else self.net(x, boxes)
                del x
                return [
                    self._download(one[:, crop.slices[0], crop.slices[1]], quantise)
                    for one, crop in zip(y, crops, strict=True)
                ]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _download(self, y: Tensor, quantise: bool) -> Pixels:
        """float32 (3, h, w) on the device -> (h, w, 3) on the host, rounded half to even."""
        y = y.permute(1, 2, 0)
        if not quantise:
            return self._to_host(y.contiguous())
        levels = LEVELS[self.out_dtype]
        scaled = (y * levels).clamp_(0, levels).round_()
        if self.out_dtype == np.uint8:
            return self._to_host(scaled.to(torch.uint8).contiguous())
        # int32 on the way, since not every device casts to uint16.
        return self._to_host(scaled.to(torch.int32).contiguous()).astype(np.uint16)

    def _to_host(self, values: Tensor) -> Pixels:
        """A numpy array of its own memory."""
        if self.device.type != "cuda":
            return values.numpy()
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return host.numpy()


def to_tensor(windows: Pixels, device: torch.device) -> Tensor:
    """uint8 or uint16 (n, h, w, 3) -> float32 (n, 3, h, w) in 0..1 on ``device``, channels_last."""
    host = torch.from_numpy(np.require(windows, requirements=["C", "W"]))
    if device.type == "cuda":
        # Pinned pages let the copy run beside kernels of other threads' streams; same stream as the kernels
        # that follow, so that no event is needed.
        host = host.pin_memory().to(device, non_blocking=True)
    # A new tensor has strides of its shape alone; a view's may differ where a side is 1, and so choose other
    # kernels.
    x = torch.empty(host.shape, dtype=torch.float32, device=device)
    return x.copy_(host).div_(LEVELS[windows.dtype]).permute(0, 3, 1, 2)


def _too_large(box: Box, device: torch.device) -> str:
    h, w = box.shape
    return (
        f"a window of {w} x {h} px does not fit the memory of {device} and cannot be cut further;"
        " make --tile smaller"
    )

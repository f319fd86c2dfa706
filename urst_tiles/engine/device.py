"""The device that networks run on: which one, its memory, and results that can be repeated to the bit."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch

from urst_tiles.errors import BadInput, BadPlan, DoesNotFit
from urst_tiles.machine import trim


def release() -> None:
    """Give back what nobody holds any more, to the card and to the system; to be called outside of the
    `except` block."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim()


def _device(name: str) -> torch.device:
    """The device called ``name``; BadPlan where this machine has no such."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadPlan(f"--device must be cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise BadPlan(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadPlan(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device, or the host's allocator, has no room."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return not isinstance(error, DoesNotFit)
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """While networks run on CUDA: float32 is float32, and the same window gives the same bytes.

    TF32, which keeps 10 bits of mantissa, is on by default for convolutions; and of transposed ones cuDNN
    takes forms that sum in any order.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = before


def resolve_device(device: str) -> str:
    """``auto`` is CUDA where there is one; raises BadInput for a device that is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        known = "cpu, cuda or auto" if torch.cuda.is_available() else "cpu or auto"
        raise BadInput(f"there is no device {device!r} here; --device takes {known}")
    return device


def device_kind(device: str) -> str:
    """What decides how sums round: the processor's vector width, or the card's name."""
    if device == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name(device)

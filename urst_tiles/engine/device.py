"""The device that networks run on: its name, its memory, and results that can be repeated to the bit."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch

from urst_tiles.errors import BadInput, BadPlan, DoesNotFit
from urst_tiles.machine import trim


def release() -> None:
    """Give freed memory back to the card and to the system.

    It must be called outside the `except` block of an error, which still refers to tensors.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim()


def _device(name: str) -> torch.device:
    """The device called ``name``; raises BadPlan if the name is wrong or this machine does not have it."""
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
    """Whether ``error`` says that the device, or the allocator of the host, has no room."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return not isinstance(error, DoesNotFit)
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Make networks on a CUDA device compute float32 in full, and the same bytes from the same window.

    By default convolutions compute float32 in TF32, which has 10 bits of mantissa, and cuDNN chooses forms of
    transposed convolutions that sum in any order. The settings of torch are restored at the end.
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
    """The device that ``device`` names; ``auto`` is ``cuda`` if this machine has CUDA, else ``cpu``.

    Raises
    ------
    BadInput : this machine does not have the device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        allowed = "cpu, cuda or auto" if torch.cuda.is_available() else "cpu or auto"
        raise BadInput(f"there is no device {device!r} here; --device takes {allowed}")
    return device


def built_for_cards() -> bool:
    """Whether this build of torch can use cards, whether there are any or not; its libraries are larger."""
    return torch.version.cuda is not None or torch.version.hip is not None


def device_kind(device: str) -> str:
    """The kind of device, since devices of one kind round sums alike.

    It names the vector instructions of the CPU, or the model of the card.
    """
    if device == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name(device)

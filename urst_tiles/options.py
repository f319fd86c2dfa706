"""What a user may choose, with its defaults; the command line derives its flags and choices from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from urst_tiles.errors import BadInput

Statistics = Literal["thumbnail", "exact", "local", "tile"]
PreserveColor = Literal["none", "luminance", "coral"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Compression = Literal["deflate", "jpeg", "lzw", "zstd", "webp"]
Dtype = Literal["auto", "uint8", "uint16"]
Seam = Literal["auto", "crop", "blend", "cut"]

#: Job queues that can start workers.
QUEUES = ("slurm", "pbs", "lsf")

#: Counts and lengths.
AT_LEAST_ONE = (
    "style_size", "thumbnail", "local_scale", "feather", "block", "workers", "tile", "threads", "memory",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything about a job but its input, its output and its style images.

    Lengths are pixels of the full-resolution image. ``None`` means: chosen for you, and written into the
    plan.

    Raises
    ------
    BadInput : when a value is outside what is allowed.
    """

    model: str = "lite"
    weights: Path | None = None
    alpha: float = 1.0
    style_size: int = 512
    preserve_color: PreserveColor = "none"
    stroke: int = 1
    mask: Path | None = None
    feather: int = 64
    statistics: Statistics = "thumbnail"
    local_scale: int = 2048
    thumbnail: int = 1024
    overviews: bool = True
    tile: int | None = None
    block: int = 4096
    halo: int | None = None
    seam: Seam = "auto"
    precision: Precision = "auto"
    device: str = "auto"
    threads: int | None = None
    bands: tuple[int, ...] | None = None
    stretch: str = "2%,98%"
    dtype: Dtype = "auto"
    compression: Compression = "deflate"
    quality: int = 90
    workers: int = 1
    scheduler: str | None = None
    cluster: str | None = None
    memory: int | None = None
    job_dir: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, allowed in choices().items():
            if getattr(self, name) not in allowed:
                flag, got = name.replace("_", "-"), getattr(self, name)
                raise BadInput(f"--{flag} must be one of {', '.join(allowed)}, got {got!r}")
        if self.cluster not in (None, *QUEUES):
            raise BadInput(f"--cluster must be one of {', '.join(QUEUES)}, got {self.cluster!r}")
        if self.cluster and self.scheduler:
            raise BadInput(
                "--cluster starts workers of its own and --scheduler names those of others; give one of them"
            )
        if not 0.0 <= self.alpha <= 1.0:
            raise BadInput(f"--alpha must lie between 0 and 1, got {self.alpha}")
        if not 1 <= self.quality <= 100:
            raise BadInput(f"--quality must lie between 1 and 100, got {self.quality}")
        if self.stroke < 1 or self.stroke & (self.stroke - 1):
            raise BadInput(f"--stroke must be 1, 2, 4, 8, ..., got {self.stroke}")
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.halo is not None and self.halo < 0:
            raise BadInput(f"--halo must not be negative, got {self.halo}")

    @classmethod
    def of(cls, given: Options | None, changes: Mapping[str, Any]) -> Options:
        """``given`` (or the defaults) with ``changes``; an unknown name is a BadInput that suggests a near
        one."""
        known = {f.name for f in fields(cls)}
        for name in changes:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(known))})"
                raise BadInput(f"there is no option {name!r}{hint}")
        return replace(given or cls(), **changes)


def choices() -> dict[str, tuple[str, ...]]:
    """Option name to its closed set of words."""
    hints = get_type_hints(Options)
    return {
        name: get_args(hint) for name, hint in hints.items() if getattr(hint, "__origin__", None) is Literal
    }

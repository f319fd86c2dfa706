"""Arrays that the preparation of a source saves, as files of NumPy (``.npz``) with checksums."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile
from urst_tiles.storage.stores import open_file


def npz(**arrays: object) -> bytes:
    """The content of an ``.npz`` file with these arrays, each with a CRC-32; None is left out."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    np.savez(buffer, **members)
    return buffer.getvalue()


def load_if_whole(path: Path | None) -> dict[str, NDArray[Any]] | None:
    """The arrays of an ``.npz`` file; None if it does not exist or is damaged, so that it is made again."""
    try:
        return None if path is None or not path.exists() else _load(path)
    except DamagedFile:
        return None


def read_thumbnail(path: Path) -> NDArray[Any]:
    """The pixels of the thumbnail that ``prepare`` saved, (h, w, channels). Raises DamagedFile."""
    return _load(path)["pixels"]


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file. Raises DamagedFile."""
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:
        raise DamagedFile(
            f"{path} is damaged ({error}); delete it and give the same command again"
        ) from error

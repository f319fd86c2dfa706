"""The state of an optimisation on disk: two images, Adam's two moments, and a journal of one tile.

    image.0 image.1    (3, h, w): step t reads image t % 2 and writes the other
    mean square        Adam's moments, (3, h, w), changed in place, tile by tile
    journal.npz        the last finished tile: its step, number, and new values in all three
    begun.json         whose state this is; written when the first image is complete

All tiles of a step take their gradients at the same image, hence the second one. A tile is finished when its
journal is: the journal is published (written beside, synced, renamed) before the files are changed, and every
change is synced before the next journal replaces it. Whatever happens in between, writing the journal's
values once more makes the files whole, so a kill costs at most one tile and the passes before it, and what
follows is the same to the bit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import DamagedFile, JobDiffers
from urst_tiles.geometry import Box
from urst_tiles.storage.publish import check_room, make_folder, publish, writing

Values = NDArray[Any]
NAMES = ("image.0", "image.1", "mean", "square")


@dataclass(frozen=True)
class Entry:
    """A finished tile: ``step`` and ``tile`` count from 0; ``row`` are the losses of the step."""

    step: int
    tile: int
    row: dict[str, float]
    image: Values
    mean: Values
    square: Values


@dataclass(frozen=True)
class Files:
    """The files in ``folder`` of an image of ``shape`` (h, w) in ``dtype``."""

    folder: Path
    shape: tuple[int, int]
    dtype: str = "float32"

    @property
    def file_bytes(self) -> int:
        """Of one file."""
        return 3 * self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def disk_bytes(self) -> int:
        """Of all, without the journal."""
        return len(NAMES) * self.file_bytes

    def begin(self, facts: Mapping[str, Any], first: Callable[[Box], Values], boxes: list[Box]) -> None:
        """Make the files if there are none; ``first`` gives (3, h, w) of each of ``boxes`` at the start.

        Raises
        ------
        JobDiffers : the files are of another image or other settings. DiskFull : no room for them.
        """
        begun = self.folder / "begun.json"
        if begun.exists():
            check_same(facts, json.loads(begun.read_text("utf-8")), self.folder)
            self._check_sizes()
            return
        make_folder(self.folder)
        (self.folder / "journal.npz").unlink(missing_ok=True)
        check_room(self.folder, self.disk_bytes)
        with writing(self.folder):
            for name in NAMES:
                with open(self.folder / name, "wb") as file:
                    file.truncate(self.file_bytes)
            for box in boxes:
                self.write("image.0", box, first(box))
        publish(begun, json.dumps(dict(facts)).encode())

    def resume(self) -> Entry | None:
        """The last finished tile, its values in place; None before the first."""
        path = self.folder / "journal.npz"
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes())) as kept:
                numbers = json.loads(str(kept["numbers"]))
                entry = Entry(**numbers["entry"], **{k: kept[k] for k in ("image", "mean", "square")})
                self._apply(entry, Box(*numbers["box"]))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DamagedFile(f"{path} is damaged ({error}); remove {self.folder} to begin anew") from None
        return entry

    def finish(self, entry: Entry, box: Box) -> None:
        """Make a tile's new values durable, then put them in place."""
        buffer = io.BytesIO()
        entry_numbers = {"step": entry.step, "tile": entry.tile, "row": entry.row}
        numbers = json.dumps(
            {"entry": entry_numbers, "box": [int(n) for n in (box.y0, box.x0, box.y1, box.x1)]}
        )
        np.savez(buffer, numbers=np.array(numbers), image=entry.image, mean=entry.mean, square=entry.square)
        publish(self.folder / "journal.npz", buffer.getvalue())
        self._apply(entry, box)

    def read(self, name: str, box: Box) -> Values:
        """(3, h, w) of a box, a copy."""
        return np.array(self._map(name)[(slice(None), *box.slices)])

    def write(self, name: str, box: Box, values: Values) -> None:
        """Put (3, h, w) in place, on the disk."""
        kept = self._map(name)
        kept[(slice(None), *box.slices)] = values
        kept.flush()

    def image(self, step: int) -> str:
        """The name of the image that ``step`` reads."""
        return NAMES[step % 2]

    def _apply(self, entry: Entry, box: Box) -> None:
        self.write(self.image(entry.step + 1), box, entry.image)
        self.write("mean", box, entry.mean)
        self.write("square", box, entry.square)

    def _map(self, name: str) -> Any:
        """A map for one use: pages once touched count as this process's memory until it is let go."""
        return np.memmap(self.folder / name, self.dtype, "r+", shape=(3, *self.shape))

    def _check_sizes(self) -> None:
        for name in NAMES:
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != self.file_bytes:
                raise DamagedFile(f"{path} is missing or cut off; remove {self.folder} to begin anew")


def check_same(facts: Mapping[str, Any], kept: Mapping[str, Any], where: Path) -> None:
    """JobDiffers, naming the first difference, where an earlier state is another optimisation's."""
    for name, value in json.loads(json.dumps(dict(facts))).items():
        if kept.get(name) != value:
            raise JobDiffers(
                f"{where} holds an optimisation with another {name} ({kept.get(name)}, now {value}):"
                " give the same settings, or another --out"
            )

"""Pictures that the page brings, as styles or to be painted; they are kept as long as the studio is open."""

from __future__ import annotations

import re
import shutil
import threading
from hashlib import sha256
from pathlib import Path

from urst_tiles.errors import BadInput, MissingFile, UrstError
from urst_tiles.source import open_source
from urst_tiles.studio.asked import PREFIX, inside, is_upload

#: The most bytes of one upload, and of all together; and the most pixels of one.
MOST_BYTES, MOST_TOGETHER, MOST_PIXELS = 64 << 20, 512 << 20, 1 << 27

#: The longest name that an upload keeps, in letters.
LONGEST_NAME = 80


class Uploads:
    """Pictures by their content: each is called by a word, ``:`` and 16 hexadecimal digits.

    Parameters
    ----------
    root : the folder of the images.
    folder : a folder for temporary files; the caller removes it.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder / "uploads"
        self._lock = threading.Lock()

    def add(self, name: str, data: bytes) -> str:
        """Keep a picture; its word.

        Raises
        ------
        BadInput : it has too many bytes or pixels, all together have too many, or it is no image.
        """
        if len(data) > MOST_BYTES:
            raise BadInput(f"{name} has more than {MOST_BYTES >> 20} MiB; put it into {self._root} instead")
        word = PREFIX + sha256(data).hexdigest()[:16]
        with self._lock:
            if not self._there(word):
                self._keep(word, plain_name(name), data)
        return word

    def path(self, word: str) -> Path:
        """The file of an upload; MissingFile if there is none of that word."""
        there = self._there(word)
        if there is None:
            raise MissingFile("this picture was uploaded to another studio; upload it again")
        return there

    def find(self, image: str) -> Path:
        """The file of an image: an upload, or below the root.

        Raises
        ------
        BadInput, MissingFile : as `inside`, and as `path`.
        """
        return self.path(image) if is_upload(image) else inside(self._root, image)

    def _there(self, word: str) -> Path | None:
        folder = self._folder / word.removeprefix(PREFIX)
        return next(folder.iterdir(), None) if is_upload(word) and folder.is_dir() else None

    def _keep(self, word: str, name: str, data: bytes) -> None:
        held = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if held + len(data) > MOST_TOGETHER:
            raise BadInput(f"the studio keeps {MOST_TOGETHER >> 20} MiB of pictures at most; open it anew")
        folder = self._folder / word.removeprefix(PREFIX)
        folder.mkdir(parents=True)
        path = folder / name
        try:
            path.write_bytes(data)
            h, w = open_source(path).shape
            if h * w > MOST_PIXELS:
                raise BadInput(
                    f"{path} has more than {MOST_PIXELS / 1e6:.0f} megapixels; put it into the root"
                )
        except (UrstError, OSError) as error:
            shutil.rmtree(folder)
            raise BadInput(str(error).replace(str(path), name)) from None


def plain_name(name: str) -> str:
    """A name for a file: the letters, digits, dots, spaces, - and _ of ``name``, shortened."""
    path = Path(name.replace("\\", "/").rsplit("/", 1)[-1])
    stem = re.sub(r"[^\w. -]+", "_", path.stem).strip(" .-")[:LONGEST_NAME] or "picture"
    return stem + re.sub(r"[^\w.]+", "", path.suffix)[:8]

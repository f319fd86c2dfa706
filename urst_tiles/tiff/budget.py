"""What opening a file may take: bytes of directories and tags, entries, text of metadata, and time.

A small file can ask for a lot of work, for example with directories that overlap, or with thousands of tags
whose values are all the same bytes. In an honest file nothing is stored in two places at once, so the
directories and the values of all tags together are hardly longer than the file.
"""

from __future__ import annotations

import time
from pathlib import Path

from urst_tiles.errors import DamagedFile

#: The directories and tags of a file may be this many times as long as the file, and ``MORE_BYTES`` longer:
#: some writers store a value once for many directories.
TIMES, MORE_BYTES = 2, 32 << 20

#: How many entries all directories that are read, or the XML of GDAL's metadata, may have. The directories
#: are the first 1024 and those of masks; a page has some 20 entries, at most 60 (NDPI, LSM).
MOST_ENTRIES = 1 << 18

#: The longest value of a tag that is taken into memory; the tables of tiles and strips may be longer.
MOST_VALUE_BYTES = 64 << 20

#: The longest text of metadata that is read, such as GDAL's XML: 16 MB of its usual items take 2.4 s and
#: 220 MB, 16 MB made to harm 5 s and 250 MB. OME-XML that is longer says nothing.
MOST_TEXT_BYTES = 16 << 20

#: Time on a core that reading the directories of a file may take.
MOST_SECONDS = 30.0


class Budget:
    """Counts what reading the directories of a file has taken, and ends it where that is too much.

    Parameters
    ----------
    path : the file, for messages.
    size : its length in bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._most = path, TIMES * size + MORE_BYTES
        self._bytes = self._entries = 0
        self._start = time.thread_time()

    def spend(self, *, size: int = 0, entries: int = 0) -> None:
        """Count ``size`` bytes and a number of entries.

        Raises
        ------
        DamagedFile : these and all before are more than an honest file has, or reading takes too long.
        """
        self._bytes += size
        self._entries += entries
        seconds = time.thread_time() - self._start
        if self._bytes > self._most or self._entries > MOST_ENTRIES or seconds > MOST_SECONDS:
            raise DamagedFile(
                f"{self._path}: its TIFF directories claim {self._entries} entries and {self._bytes} bytes, "
                "more than an intact file of this size has; it is damaged or made to harm"
            )

"""Where dask's schedulers and workers put their folders: where no other user can put anything.

Each of them has a folder for temporary files and puts it first on ``sys.path``. By default these folders lie
in ``dask-scratch-space`` in the temporary folder of the machine, which belongs to the user who came first;
that user could exchange them for others, and code in those would run.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from urst_tiles.errors import BadInput
from urst_tiles.storage.private import NAME, make_private


@contextmanager
def private_scratch() -> Iterator[None]:
    """Let dask make these folders in a folder that this user alone can enter. At the end ``sys.path`` is as
    it was."""
    import dask

    before = list(sys.path)
    base = Path(dask.config.get("temporary-directory", None) or tempfile.gettempdir())
    with dask.config.set({"temporary-directory": str(private_folder(base))}):
        try:
            yield
        finally:
            sys.path[:] = [folder for folder in sys.path if folder in before or NAME not in folder]
            for folder in [folder for folder in sys.path_importer_cache if NAME in folder]:
                del sys.path_importer_cache[folder]


def private_folder(base: Path) -> Path:
    """A folder in ``base`` that this user alone can enter: the same one for all processes, so that dask
    clears away what killed ones left, unless somebody else has taken its name.

    Raises
    ------
    BadInput : no folder can be made in ``base``.
    """
    folder = base if base.name == NAME else base / NAME
    with suppress(OSError):
        if make_private(folder):
            return folder
    try:
        other = Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir=base))
    except OSError as error:
        raise BadInput(
            f"no folder can be made in {base} for temporary files ({error.strerror}); set TMPDIR to another"
        ) from None
    atexit.register(shutil.rmtree, other, ignore_errors=True)
    return other

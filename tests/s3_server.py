"""An S3 server on this machine, for tests of object stores."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The address of the server, as ``http://127.0.0.1:PORT``; what it says goes into ``log``.

    s3fs keeps what it has opened, whatever address it had: it forgets that before and afterwards.
    """
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as file, subprocess.Popen(command, stderr=file, stdout=file) as process:
        try:
            while not (found := re.search(r"Running on (http\S+)\s", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield found[1]
        finally:
            process.kill()
            s3fs.S3FileSystem.clear_instance_cache()

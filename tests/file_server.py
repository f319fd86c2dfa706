"""A server of HTTP on this machine, for tests of images at addresses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Serves the files of a folder, and parts of them, at a port that it prints. It is a process of its own:
#: rasterio does not let other threads of Python run while GDAL opens a file. What has "secret" in its name is
#: forbidden, "broken" fails, "whole" is served whole only, and "plain" without an ETag; what was asked for is
#: written into a file beside the folder.
SERVER = """
import re, sys, zlib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Ranges(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        with open(sys.argv[1] + ".log", "a") as log:
            log.write(f"{self.command} {self.path}\\n")
        if "secret" in self.path:
            return self.send_error(403)
        if "broken" in self.path:
            return self.send_error(500)
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        tag, size, status = zlib.crc32(data), len(data), 200
        found = re.match(r"bytes=(\\d*)-(\\d*)", self.headers.get("Range", ""))
        if found and self.command == "GET" and "whole" not in self.path:
            start, stop = int(found[1] or 0), min(int(found[2] or size - 1) + 1, size)
            if not found[1]:
                start, stop = max(0, size - int(found[2])), size
            data, status = data[start:stop], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        if "plain" not in self.path:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Ranges(*a, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address at which a folder is served, as ``http://127.0.0.1:PORT``."""
    command = [sys.executable, "-c", SERVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def asked(folder: Path) -> list[str]:
    """What was asked for, as ``GET /a.tif``, since this was called last."""
    log = Path(f"{folder}.log")
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines

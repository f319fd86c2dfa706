"""The program that writes hashes into constraints.txt, on a small package index."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

#: The files of each package of the index; the digest of each is its number, in hex.
FILES = {
    "pure": ["pure-1.0-py3-none-any.whl", "pure-1.0.tar.gz", "pure-1.1-py3-none-any.whl"],
    "native-code": [
        f"native_code-2.0-cp3{minor}-cp3{minor}-{system}.whl"
        for minor in (10, 11, 12, 13)
        for system in ("manylinux_2_28_x86_64", "manylinux2014_aarch64", "macosx_11_0_arm64", "win_amd64")
    ],
    "stable": [
        "stable-1-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "stable-1-cp38-abi3-manylinux_2_17_aarch64.whl",
        "stable-1-cp38-abi3-musllinux_1_2_x86_64.whl",
        "stable-1-cp313-cp313t-manylinux_2_17_x86_64.whl",
    ],
    "intel": ["intel-1-py2.py3-none-manylinux1_x86_64.whl", "intel-1.tar.gz"],
    "nowhere": ["nowhere-1-cp311-cp311-manylinux_2_17_x86_64.whl"],
}


class Index(BaseHTTPRequestHandler):
    """A package index, in the form of PEP 691."""

    def do_GET(self) -> None:
        name = self.path.strip("/").split("/")[-1]
        if name not in FILES:
            return self.send_error(404)
        files = [{"filename": f, "hashes": {"sha256": digest(f)}} for f in FILES[name]]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"files": files}).encode())

    def log_message(self, *_: object) -> None:
        pass


def digest(file: str) -> str:
    """A digest that tells which file it is."""
    return file.encode().hex()[-64:].rjust(64, "0")


@pytest.fixture
def index() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def program(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    return pipeline("make_constraints")


def test_every_wheel_that_may_be_installed_has_its_hash(
    program: ModuleType, index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text(
        "# Why.\nstable==1 \\\n    --hash=sha256:old\nNative_Code==2.0\nintel==1\npure==1.0\ntorch==2.13.0\n"
    )
    assert program.main([str(path), "--index", index]) == 0
    wanted = {
        "torch==2.13.0": [],
        "intel==1": FILES["intel"],
        "Native_Code==2.0": [f for f in FILES["native-code"] if "cp310" not in f and "win" not in f],
        "pure==1.0": ["pure-1.0-py3-none-any.whl"],
        "stable==1": FILES["stable"][:2],
    }
    lines = [
        " \\\n    ".join([name, *(f"--hash=sha256:{d}" for d in sorted(map(digest, files)))])
        for name, files in wanted.items()
    ]
    assert path.read_text() == "# Why.\n" + "\n".join(lines) + "\n"
    assert "5 packages, 14 hashes; built from source on some systems: intel" in capsys.readouterr().out
    written = path.read_text()
    assert program.main([str(path), "--index", index]) == 0 and path.read_text() == written


@pytest.mark.parametrize(("pin", "sentence"), [
    ("nowhere==1", "nowhere 1 has no file for Python 3.11 on Linux, aarch64"),
    ("pure==3.0", "pure 3.0 has no file"), ("missing==1", "404"),
])  # fmt: skip
def test_what_cannot_be_installed_leaves_the_file_as_it_is(
    program: ModuleType,
    index: str,
    tmp_path: Path,
    pin: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text(f"pure==1.0\n{pin}\n")
    assert program.main([str(path), "--index", index]) == 2
    assert sentence in capsys.readouterr().err and path.read_text() == f"pure==1.0\n{pin}\n"

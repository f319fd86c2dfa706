"""A studio in a process of its own, and asking it by plain HTTP."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


class Served:
    """``urst-tiles studio`` with these arguments; ends with the block.

    Attributes
    ----------
    url, token, port : the address that it printed, and what it consists of.
    """

    def __init__(self, *arguments: object, cwd: Path) -> None:
        command = [sys.executable, "-m", "urst_tiles", "studio", *map(str, arguments), "--no-browser"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        found = re.search(r"(http://\S+:(\d+)/([\w-]+)/)", line)
        assert found, line + self.process.stderr.read()
        self.url, self.port, self.token = found[1], int(found[2]), found[3]

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: str | None = None,
        token: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in small letters) and body of the answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        try:
            link.request(method, f"/{token}/{path}" if token else f"/{path}", body, named)
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            link.close()

    def api(self, name: str, **words: object) -> Any:
        """The answer to a question, which must be a good one."""
        status, _, body = self.ask(f"api/{name}?{urlencode(words)}")
        assert status == 200, body
        return json.loads(body)

    def trouble(self, path: str, **words: object) -> str:
        """The sentence with which a question is refused."""
        status, _, body = self.ask(f"{path}?{urlencode(words)}")
        assert status == 400, (status, body)
        sentence = json.loads(body)["error"]
        assert sentence and "Traceback" not in sentence
        return sentence

    def close(self) -> tuple[int, str]:
        """Interrupt it; its exit status and what it said on stderr."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

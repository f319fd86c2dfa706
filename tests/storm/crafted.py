"""Files made to do harm, by a table of kinds: success or one sentence, soon, in little memory, and nothing
touched that is none of the job's.

Each kind is a function of a folder and random numbers. It writes something and says how it is used.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import kills
import numpy as np
from apart import one_sentence, outcomes
from bombs import IMAGES, WEIGHTS
from files import clean, read_network, read_weights
from tally import BROKEN, Tally, Trial
from warm import Child

Random = np.random.Generator

#: Values of JSON that stand where others are expected.
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1e308,
    float("nan"),
    "",
    "x" * 5000,
    "\0",
    "../x",
    [],
    [[]],
    {},
    {"a": {}},
]


def use_image(path: Path, folder: Path) -> None:
    """Whatever is done with an input: info, validate, the header of an output, pixels, the job's copy."""
    from urst_tiles.cli.info import run_info
    from urst_tiles.encoding import make_encoding
    from urst_tiles.geometry import Box, Grid
    from urst_tiles.pyramid import check_header, validate
    from urst_tiles.source import open_source

    with suppress(OSError):
        validate(path)
    with redirect_stdout(StringIO()):
        run_info(argparse.Namespace(file=path, json=False))
    source = open_source(path)
    height, width = source.shape
    encoding = make_encoding(source, "uint8", "deflate", 90, 512)
    check_header(Grid(height, width, 0, 1, 1024, 4096, 512, 1), encoding, source.info, name=str(path))
    if height * width < 1 << 22:
        source = source.prepare(None if source.random_access else folder, thumbnail=8)
        source.read(Box(0, 0, min(height, 64), min(width, 64)))


def mixed_up(value: Any, random: Random) -> Any:
    """JSON values with one of them, at any depth, exchanged for an odd one."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = list(value)[int(random.integers(len(value)))]
        if random.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: mixed_up(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = int(random.integers(len(value)))
        return [*value[:at], mixed_up(value[at], random), *value[at + 1 :]]
    return ODD[int(random.integers(len(ODD)))]


def network(path: Path, random: Random) -> None:
    """A frozen network whose description was edited."""
    from files import KINDS
    from safetensors import safe_open
    from safetensors.torch import save_file

    KINDS["frozen network"].make(path)
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["urst_tiles"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    kind = int(random.integers(5))
    if kind == 0:
        values["family"] = ["os:system", "builtins:eval", "a.b.c:d", ":", "x:"][int(random.integers(5))]
    elif kind == 1:
        name = list(tensors)[int(random.integers(len(tensors)))]
        tensors[name] = tensors[name].flatten()[: int(random.integers(3))].clone()
    else:
        values = mixed_up(values, random)
    text = "[" * 100_000 if kind == 2 else json.dumps(values)
    save_file(tensors, path, metadata={"urst_tiles": text})


def table(path: Path, random: Random) -> None:
    """A table of jobs with odd values."""
    words = ['"a.png"', '"**/*.png"', '"/etc/*"', '"../*"', "3", "nan", "1979-05-27", "true", "[]", '[["a"]]',
             '""', '"\\u0000"', '{name = "x"}', '{mix = [[1, 2]]}', '{regions = {x = 1}}', '"{stem"',
             '"{stem:>99999999}"',
             '"{stem.__class__}"', '"{0}"', '"{stem!r}"', '"hokusai-wave"',
             '"' + "n" * 5000 + '"', "9" * 400]  # fmt: skip
    names = ["inputs", "exclude", "styles", "output", "options", "jobs", "tile", "x"]

    def word(items: list[str]) -> str:
        return items[int(random.integers(len(items)))]

    lines = [f"{name} = {word(words)}" for name in {word(names) for _ in range(4)}]
    lines += [word(["", "[options]", "[[jobs]]", "[jobs]", "[" * 3000, "a." * 3000 + "b = 1", "[x]" * 9])]
    lines += [f"{word(['tile', 'alpha', 'model', 'mask', 'device', 'memory'])} = {word(words)}"]
    path.write_text("\n".join(lines) + "\n")
    (path.parent / "a.png").write_bytes(b"\x89PNG")


def odd_file(path: Path, random: Random) -> None:
    """What is no regular file, or a link."""
    kind = int(random.integers(7))
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        with socket.socket(socket.AF_UNIX) as listening, suppress(OSError):
            listening.bind(str(path))
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        path.mkdir()
    elif kind == 5:
        path.symlink_to("/dev/full")
    else:
        path.symlink_to(path.with_name("nowhere"))


def odd_name(path: Path, random: Random) -> Path:
    """A good picture of a hostile name."""
    from files import strips

    names = [b"a\nb.tif", b"\x1b]0;x\x07.tif", b"\xff\xfe.tif", b"n" * 251 + b".tif", b"-o.tif", b"%s{0}.tif",
             "\u202egpj.tif".encode(), b"s3:x.tif", b"  .tif", b"*.tif", b"$(id).tif"]  # fmt: skip
    named = path.with_name(os.fsdecode(names[int(random.integers(len(names)))]))
    strips(path)
    return path.rename(named)


class Jobs:
    """A folder of a job that was saved for workers, to be made hostile; what lies outside of it must stay."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scene = folder, kills.Scene(folder)
        self.saved = folder / "saved"
        self.output = folder / "trial" / "out.tif"
        self.output.parent.mkdir()
        _, scene, _, *options = self.scene.command(self.output, "thumbnail")
        plan = ["plan", "--save", self.saved, scene, self.output, *options]
        assert Child(plan, folder / "said").wait() == 0
        assert Child(["work", self.saved, "--shard", "1/2"], folder / "said").wait() == 0

    def outcome(self, harm: Callable[[Path, Path, Random], None], random: Random) -> str:
        trial, outside = clean(self.output.parent), clean(self.folder / "outside")
        (outside / "theirs").write_text("theirs")
        job = Path(shutil.copytree(self.saved, trial / "job"))
        harm(job, outside, random)
        before = _listed(outside)
        ends = []
        for command in (["work", job], ["assemble", job]):
            child = Child(command, self.folder / "said")
            ends.append(child.wait())
            assert ends[-1] in (0, 1, 2), child.said
            lines = [line for line in child.said.splitlines() if line.startswith("urst-tiles: ")]
            assert "Traceback" not in child.said and (ends[-1] == 0 or len(lines) == 1), child.said
        assert _listed(outside) == before, f"{before} became {_listed(outside)}"
        assert not (self.folder / "ran").exists(), "code of the folder was run"
        there = self.output.exists()
        if there:
            assert kills.sha(self.output) == self.scene.whole["thumbnail"], "other bytes"
        assert there == (ends[1] == 0), ends
        return "right" if there else "a sentence"


def _listed(folder: Path) -> dict[str, Any]:
    """What lies in a folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        found[str(path)] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def _victims(job: Path) -> list[Path]:
    return sorted(path for path in job.rglob("*") if path.is_file())


def links_and_pipes(job: Path, outside: Path, random: Random) -> None:
    """A file of the job is exchanged for a link to a file of somebody else, a pipe, a folder."""
    victims = [*_victims(job), job / "parts" / "00000002.tif", job / ".request.json.0123.tmp"]
    victim = victims[int(random.integers(len(victims)))]
    victim.unlink(missing_ok=True)
    if random.integers(2):
        victim.symlink_to(outside / "theirs")
    else:
        odd_file(victim, random)


def hostile_lists(job: Path, outside: Path, random: Random) -> None:
    """written.json names what is none of the job's."""
    names = ["../outside/theirs", str(outside / "theirs"), "parts/../../../outside/theirs", "..", ".", "/",
             "", "parts//../x", "\0", "a" * 70000, "../outside/"]  # fmt: skip
    values = json.loads((job / "written.json").read_text())
    values["written"] += [names[int(random.integers(len(names)))]]
    if random.integers(2):
        (job / "parts" / "up").symlink_to(outside)
        values["written"] += ["parts/up/theirs", "parts/up/"]
    (job / "written.json").write_text(json.dumps(values))


def hostile_records(job: Path, outside: Path, random: Random) -> None:
    """The request, job.json or written.json holds odd values, or too deep ones."""
    path = job / ["request.json", "job.json", "written.json"][int(random.integers(3))]
    values = json.loads(path.read_text())
    kind = int(random.integers(6))
    if kind == 0:
        path.write_text("[" * 200_000)
    elif kind == 1:
        path.write_text('{"a":' + "9" * 5000 + "}")
    elif kind == 2 and path.name == "request.json":
        path.write_text(json.dumps(values | {"output": str(outside / "theirs")}))
    else:
        path.write_text(json.dumps(mixed_up(values, random)))


def hostile_network(job: Path, outside: Path, random: Random) -> None:
    """net.safetensors names code, which lies in the folder too, or holds odd values."""
    network(job / "net.safetensors", random)
    (job / "harm.py").write_text(f"open({str(job.parent.parent / 'ran')!r}, 'w')\ndef f(*a): pass\n")


JOBS: dict[str, Callable[[Path, Path, Random], None]] = {
    "links and pipes in a job folder": links_and_pipes,
    "names in written.json": hostile_lists,
    "odd values in a job's records": hostile_records,
    "a job's network": hostile_network,
}


def _use_odd_name(path: Path, folder: Path, random: Random) -> None:
    use_image(odd_name(path, random), folder)


def _read_table(path: Path, folder: Path, random: Random) -> None:
    from urst_tiles.api.table import read_table

    table(path, random)
    read_table(path)


def _made_and_used(
    make: Callable[[Path, Random], None], use: Callable[[Path, Path], Any]
) -> Callable[[Path, Path, Random], None]:
    def do(path: Path, folder: Path, random: Random) -> None:
        make(path, random)
        use(path, folder)

    return do


#: The name of the file, and what makes and uses it.
FILES: dict[str, tuple[str, Callable[[Path, Path, Random], None]]] = {
    **{kind: ("a.tif", _made_and_used(make, use_image)) for kind, make in IMAGES.items()},
    **{kind: ("a.pth" if "PyTorch" in kind else "a.safetensors", _made_and_used(make, read_weights))
       for kind, make in WEIGHTS.items()},
    "descriptions of networks": ("a.safetensors", _made_and_used(network, read_network)),
    "tables of jobs": ("jobs.toml", _read_table),
    "no regular files": ("a.tif", _made_and_used(odd_file, use_image)),
    "hostile names": ("a.tif", _use_odd_name),
}  # fmt: skip

KINDS = [*FILES, *JOBS]


def storm(tally: Tally, numbers: Iterable[int], seed: int, folder: Path) -> None:
    """Make the trials with these numbers, each kind in turn."""
    from urst_tiles.errors import UrstError

    jobs: list[Jobs] = []
    numbers = list(numbers)

    def use(number: int) -> str:
        name, do = FILES[KINDS[number % len(KINDS)]]
        where = clean(folder / "crafted")
        (where / "job").mkdir()
        try:
            do(where / name, where / "job", np.random.default_rng([seed, number]))
        except UrstError as error:
            one_sentence(error, str(where), where.name)
            return "a sentence"
        return "success"

    for number, (outcome, details) in outcomes(
        use, [n for n in numbers if KINDS[n % len(KINDS)] in FILES], folder / "log"
    ):
        tally.add(Trial(number, KINDS[number % len(KINDS)], outcome.partition(":")[0], outcome, details))
    for number in (n for n in numbers if KINDS[n % len(KINDS)] in JOBS):
        kind = KINDS[number % len(KINDS)]
        jobs = jobs or [Jobs(clean(folder / "jobs"))]
        try:
            outcome, details = jobs[0].outcome(JOBS[kind], np.random.default_rng([seed, number])), ""
        except (AssertionError, TimeoutError) as error:
            outcome, details = f"{BROKEN}: a job", str(error)
        tally.add(Trial(number, kind, outcome.partition(":")[0], outcome, details))

"""Many jobs from one table: all of them or a sentence before anything runs; finished ones are left alone."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.api.batch import Record, request_of
from urst_tiles.api.table import read_table
from urst_tiles.source.picture import write_png

OPTIONS = '\n[options]\nmodel = "identity"\ntile = 128\nblock = 512\n'
ALL = 'inputs = "in/*.tif"\nstyles = ["a.png", "b.png"]\noutput = "out/{stem}-{style}.tif"\n' + OPTIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two inputs, two styles."""
    (tmp_path / "in").mkdir()
    for k, name in enumerate(("one", "two")):
        geotiff(tmp_path / "in" / f"{name}.tif", picture(200, 300, seed=k))
        write_png(tmp_path / f"{'ab'[k]}.png", picture(64, 64, seed=10 + k))
    return tmp_path


def table(folder: Path, text: str) -> Path:
    (folder / "jobs.toml").write_text(text)
    return folder / "jobs.toml"


def tried(run, folder: Path, text: str = ALL, *more: object) -> tuple[int, dict[str, str]]:
    """Run; the exit status, and how each output's job ended."""
    done = run("run", table(folder, text), "--summary", folder / "s.csv", *more)
    assert "Traceback" not in done.stderr
    with (folder / "s.csv").open() as file:
        return done.returncode, {Path(row["output"]).stem: row["status"] for row in csv.DictReader(file)}


def refused(run, path: Path, *words: object) -> None:
    """Exit status 2, one sentence, and nothing was made."""
    done = run("run", path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"urst-tiles: {path}: ")
    for word in words:
        assert str(word) in done.stderr
    assert not (path.parent / "out").exists()


def test_every_input_in_every_style(run, folder: Path) -> None:
    done = run("run", table(folder, ALL), "--summary", folder / "all.csv")
    assert (done.returncode, done.stderr) == (0, "")
    outputs = sorted(path.name for path in (folder / "out").glob("*.tif"))
    assert outputs == ["one-a.tif", "one-b.tif", "two-a.tif", "two-b.tif"]
    for name in outputs:
        assert ut.validate(folder / "out" / name).valid
    np.testing.assert_array_equal(tifffile.imread(folder / "out" / "two-b.tif"), picture(200, 300, seed=1))
    assert done.stdout.count("done  ") == 4
    assert done.stdout.endswith("4 done, 0 were done before, 0 failed\n")
    with (folder / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["style"] for row in rows] == ["a", "b", "a", "b"]
    assert {row["megapixels"] for row in rows} == {"0.06"} and float(rows[0]["seconds"]) > 0


def test_pairs_overrides_and_exceptions(folder: Path) -> None:
    """``jobs`` as a table of pairs: what an entry leaves out is the table's."""
    text = """
        output = "{folder}-{stem}-{style}.tif"
        styles = "a.png"
        [options]
        alpha = 0.5
        statistics = "exact"
        [[jobs]]
        inputs = "in/*.tif"
        exclude = "in/t*.tif"
        [[jobs]]
        inputs = "in/two.tif"
        styles = ["munch-scream"]
        options = {alpha = 1, bands = [3, 2, 1]}
        [[jobs]]
        inputs = "in/two.tif"
        output = "mixed.tif"
        styles = {name = "both", mix = [["a.png", 2], ["munch-scream", 1]]}
        options = {model = "lite", memory = "1.5G"}
        [[jobs]]
        inputs = "in/two.tif"
        styles = {name = "fields", regions = {1 = "a.png", 7 = "b.png"}}
        options = {mask = "masks/{stem}.png", weights = "w"}
    """
    one, two, mixed, fields = read_table(table(folder, text))
    assert (one.input, one.output) == (folder / "in" / "one.tif", folder / "in-one-a.tif")
    assert one.style == str(folder / "a.png") and (one.options.alpha, one.options.statistics) == (
        0.5,
        "exact",
    )
    assert two.style == "munch-scream" and two.output == folder / "in-two-munch-scream.tif"
    assert (two.options.alpha, two.options.bands, two.options.statistics) == (1.0, (3, 2, 1), "exact")
    assert mixed.style == [(str(folder / "a.png"), 2.0), ("munch-scream", 1.0)]
    assert mixed.output == folder / "mixed.tif" and mixed.options.memory == 3 << 29
    assert fields.style == {1: str(folder / "a.png"), 7: str(folder / "b.png")}
    assert fields.options.mask == folder / "masks" / "two.png" and fields.options.weights == folder / "w"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("inputs", "input", ("no key 'input'", "did you mean 'inputs'")),
        ("inputs", "alpha = 1\ninputs", ("no key 'alpha'", "of options")),
        ("tile = 128", "tle = 128", ("no option 'tle'", "'tile'")),
        ("tile = 128", 'tile = "128"', ("tile must be a whole number", "'128'")),
        ("tile = 128", "overviews = 1", ("overviews must be true or false",)),
        ("tile = 128", "bands = [1.5]", ("bands must be a list of whole numbers",)),
        ("tile = 128", 'memory = "lots"', ("'lots'", "1.5G")),
        ("tile = 128", "alpha = 7", ("--alpha", "7")),
        ("tile = 128", 'compression = "zip"', ("--compression", "zip")),
        ("tile = 128", "overwrite = true", ("overwrite", "urst-tiles run")),
        ("tile = 128", 'job_dir = "x"', ("job_dir", "beside its output")),
        ("in/*.tif", "in/*.tiff", ("no file matches", "in/*.tiff")),
        ('"in/*.tif"', '"in/*.tif"\nexclude = "in/*"', ("no file that is not excluded",)),
        ('"in/*.tif"', "[]", ("inputs names no file",)),
        ('"in/*.tif"', "[1]", ("must be a text", "1")),
        ("{stem}-", "", ("two jobs write", "one.tif in a", "two.tif in a", "{stem}")),
        ("{stem}-{style}", "{stem}-{size}", ("names {size}", "{folder}")),
        ("{stem}-{style}", "{stem", ("no pattern",)),
        ("{stem}-{style}", "{stem:>999999999}-{style}", ("says how to write {stem}", "as they are")),
        ("{stem}-{style}", "{stem}-{style:{stem}}", ("says how to write {style}",)),
        ("{stem}-{style}", "{stem!r}-{style}", ("says how to write {stem}",)),
        ("{stem}-{style}", "{stem.__class__}", ("names {stem.__class__}",)),
        ("{stem}-{style}", "{stem[0]}-{style}", ("names {stem[0]}",)),
        ("{stem}-{style}", "{}-{style}", ("names {}",)),
        (
            '"b.png"',
            '{name = "../b", mix = [["b.png", 1]]}',
            ("another folder", "'../b'", "rename the style"),
        ),
        ('"b.png"', '{name = "..", mix = [["b.png", 1]]}', ("another folder", "'..'")),
        ('"b.png"', '{name = "x\\u0000", mix = [["b.png", 1]]}', ("another folder",)),
        ("out/{stem}-{style}", "in/one", ("two jobs write",)),
        ("b.png", "nosuch.png", ("no style image nosuch.png",)),
        ('"b.png"', "{mix = []}", ("has a name",)),
        ('"b.png"', '{name = "x", mix = ["b.png"]}', ("[style, weight]",)),
        ('"b.png"', '{name = "x", mixed = []}', ("no key 'mixed'", "'mix'")),
        ('"b.png"', '{name = "x", regions = {one = "b.png"}}', ("number = style",)),
        ("\n[options]", "\njobs = 3\n[options]", ("jobs must be",)),
        ('output = "out', 'outputs = "out', ("no key 'outputs'",)),
        ("inputs =", "inputs", ("no TOML",)),
        ('model = "identity"', 'model = "nosuch"', ("nosuch",)),
        ('model = "identity"', 'model = "os:getcwd"', ("names code, 'os:getcwd'", "--model os:getcwd")),
    ],
)
def test_a_wrong_table_is_one_sentence_before_anything_runs(run, folder: Path, old, new, words) -> None:
    assert old in ALL
    refused(run, table(folder, ALL.replace(old, new, 1)), *words)


@pytest.mark.parametrize("pattern", ["out/{stem}/{style}.tif", "out/{style}-{stem}.tif"])
def test_a_stem_that_is_the_folder_above(run, folder: Path, pattern: str) -> None:
    (folder / "in" / "one.tif").rename(folder / "in" / "...tif")
    text = ALL.replace("in/*.tif", "in/...tif").replace("out/{stem}-{style}.tif", pattern)
    refused(run, table(folder, text), "would lead to another folder, as {stem} is '..'; rename the file")
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "in", "jobs.toml"]


def test_an_absolute_path_of_a_style_is_named_by_its_stem(folder: Path) -> None:
    text = ALL.replace('"b.png"', f'"{folder}/b.png", "./a.png"').replace('"a.png", ', "")
    names = [entry.output.name for entry in read_table(table(folder, text))]
    assert sorted(names) == ["one-a.tif", "one-b.tif", "two-a.tif", "two-b.tif"]


def test_a_table_names_code_only_together_with_the_call(run, folder: Path, monkeypatch) -> None:
    import sys

    text = (
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())\n"
    )
    (folder / "tablenet.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    path = table(folder, '''
        inputs = "in/one.tif"
        output = "out/{stem}.tif"
        options = {model = "tablenet:net", tile = 128, block = 512}
    ''')  # fmt: skip
    refused(run, path, "names code, 'tablenet:net'", "--model tablenet:net")
    assert run("run", path, "--model", "os:getcwd").returncode == 2
    assert "tablenet" not in sys.modules
    done = run("run", path, "--model", "os:getcwd", "--model", "tablenet:net")
    sys.modules.pop("tablenet", None)
    assert done.returncode == 0 and ut.validate(folder / "out" / "one.tif").valid, done.stderr


def test_no_table_and_no_output(run, folder: Path) -> None:
    done = run("run", folder / "none.toml")
    assert done.returncode == 2 and "none.toml" in done.stderr and done.stderr.count("\n") == 1
    refused(run, table(folder, 'inputs = "in/*.tif"\n'), "there is no output")
    done = run("run", table(folder, ALL), "--summary", folder / "no" / "s.csv")
    assert done.returncode == 2 and "no folder" in done.stderr and not (folder / "out").exists()


def test_outputs_are_not_taken_for_inputs(run, folder: Path) -> None:
    text = ALL.replace("out/{stem}-{style}", "in/{stem}-{style}")
    assert tried(run, folder, text)[0] == 0
    refused(run, folder / "jobs.toml", "one-a.tif is read, and is the output of", "exclude")
    status, ended = tried(run, folder, text.replace("styles", 'exclude = "in/*-?.tif"\nstyles', 1))
    assert (status, set(ended.values())) == (0, {"skipped"})


def test_failures_are_listed_and_tried_again(run, folder: Path) -> None:
    whole = (folder / "in" / "one.tif").read_bytes()
    (folder / "in" / "one.tif").write_bytes(whole[:5000])
    done = run("run", table(folder, ALL))
    assert done.returncode == 1
    assert done.stdout.endswith("2 done, 0 were done before, 2 failed; the same command tries these again\n")
    failures = done.stderr.splitlines()
    assert len(failures) == 2
    assert all(line.startswith(f"urst-tiles: {folder}/in/one.tif in ") for line in failures)
    assert not list((folder / "out").glob("one*"))
    (folder / "in" / "one.tif").write_bytes(whole)
    status, ended = tried(run, folder)
    assert status == 0
    assert ended == {"one-a": "done", "one-b": "done", "two-a": "skipped", "two-b": "skipped"}


def test_a_bug_in_one_job_is_not_the_others(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urst_tiles.api import batch

    whole = batch.stylize_on

    def breaks(input: Path, output: Path, *more, **options):
        if output.name == "one-b.tif":
            raise ZeroDivisionError("no")
        return whole(input, output, *more, **options)

    monkeypatch.setattr(batch, "stylize_on", breaks)
    done = run("run", table(folder, ALL))
    assert done.returncode == 1 and "in b: ZeroDivisionError: no" in done.stderr
    assert len(list((folder / "out").glob("*.tif"))) == 3


def times(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "out").glob("*.tif")}


def test_finished_jobs_are_left_alone_as_long_as_nothing_changed(run, folder: Path) -> None:
    assert tried(run, folder)[0] == 0
    before = times(folder)
    for same in (ALL, ALL + 'device = "cpu"\nthreads = 1\n', ALL + 'compression = "deflate"\n'):
        status, ended = tried(run, folder, same)
        assert (status, set(ended.values()), times(folder)) == (0, {"skipped"}, before)
    os.utime(folder / "in" / "one.tif")
    assert tried(run, folder)[1]["one-a"] == "skipped", "a time is no content"


@pytest.mark.parametrize("change", ["input", "style", "options", "output"])
def test_what_was_made_for_another_request_is_not_replaced_unasked(run, folder: Path, change: str) -> None:
    only = ALL.replace("in/*.tif", "in/one.tif").replace(', "b.png"', "")
    assert tried(run, folder, only) == (0, {"one-a": "done"})
    if change == "input":
        geotiff(folder / "new.tif", picture(200, 300, seed=5)).rename(folder / "in" / "one.tif")
    elif change == "style":
        write_png(folder / "a.png", picture(80, 64, seed=6))
    elif change == "options":
        only += 'compression = "lzw"\n'
    else:
        with (folder / "out" / "one-a.tif").open("ab") as file:
            file.write(b"mine")
    before = times(folder)
    done = run("run", table(folder, only))
    assert done.returncode == 1 and "--overwrite" in done.stderr and times(folder) == before
    assert tried(run, folder, only, "--overwrite") == (0, {"one-a": "done"})
    assert tried(run, folder, only, "--overwrite") == (0, {"one-a": "skipped"})
    assert ut.validate(folder / "out" / "one-a.tif").valid


def test_a_file_of_someone_else_is_not_replaced(run, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "one-a.tif").write_text("mine")
    status, ended = tried(run, folder)
    assert status == 1 and ended["one-a"] == "failed" and list(ended.values()).count("done") == 3
    assert (folder / "out" / "one-a.tif").read_text() == "mine"
    assert not (folder / "out" / "one-a.tif.json").exists()


def test_a_kill_between_the_output_and_its_record(run, folder: Path) -> None:
    """The record tells what was begun, so the output is known for what it is; unless it was to go."""
    only = ALL.replace("in/*.tif", "in/one.tif").replace(', "b.png"', "")
    assert tried(run, folder, only) == (0, {"one-a": "done"})
    entry = read_table(folder / "jobs.toml")[0]
    record = Record.beside(entry.output)
    assert record.request == request_of(entry) and record.made is not None
    Record(record.path, record.request).publish()
    assert tried(run, folder, only) == (0, {"one-a": "skipped"})
    Record(record.path, record.request, replaces=record.output).publish()
    before = times(folder)
    assert tried(run, folder, only) == (0, {"one-a": "done"})
    assert times(folder) != before and Record.beside(entry.output).output == record.output
    record.path.write_text("{}")
    done = run("run", folder / "jobs.toml")
    assert done.returncode == 1 and "is no record of one-a.tif" in done.stderr


def test_an_interrupted_job_goes_on(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two of four blocks: the summary tells what was done, the next call keeps those blocks."""
    from urst_tiles.pyramid.parts import Parts

    def stops(stage: str, done: int, total: int) -> None:
        if stage.endswith("stylising") and (done, total) == (2, 4):
            raise KeyboardInterrupt

    geotiff(folder / "in" / "two.tif", picture(900, 1000))
    only = ALL.replace(', "b.png"', "")
    with monkeypatch.context() as patch:
        patch.setattr("urst_tiles.cli.batch.progress_for", lambda as_json: stops)
        assert run("run", table(folder, only), "--summary", folder / "s.csv").returncode == 130
    assert (folder / "s.csv").read_text().count("\n") == 2
    kept = len(list((folder / "out" / "two-a.tif.job" / "parts").glob("[0-9]*.tif")))
    whole, made = Parts.write, []

    def counts(self: Parts, index: int, pixels: np.ndarray):
        made.extend([index] if self.stage == 0 else [])
        return whole(self, index, pixels)

    monkeypatch.setattr(Parts, "write", counts)
    assert tried(run, folder, only) == (0, {"one-a": "skipped", "two-a": "done"})
    assert kept >= 2 and len(made) == 4 - kept


def test_shards_share_the_jobs(run, folder: Path) -> None:
    first = tried(run, folder, ALL, "--shard", "1/3")
    assert first == (0, {"one-a": "done", "two-b": "done"})
    assert tried(run, folder, ALL, "--shard", "2/3") == (0, {"one-b": "done"})
    assert tried(run, folder, ALL, "--shard", "3/3") == (0, {"two-a": "done"})
    assert set(tried(run, folder)[1].values()) == {"skipped"}
    assert run("run", folder / "jobs.toml", "--shard", "4/3").returncode == 2


def test_the_readmes_table_is_read(root: Path, folder: Path) -> None:
    text = re.search(r"```toml\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert text is not None
    (folder / "scenes").mkdir()
    for name in ("day", "night1"):
        geotiff(folder / "scenes" / f"{name}.tif", picture(64, 64))
    write_png(folder / "painting.png", picture(64, 64))
    (folder / "painting.png").rename(folder / "painting.jpg")
    entries = read_table(table(folder, text[1]))
    names = [entry.output.name for entry in entries]
    assert names == ["day-painting.tif", "day-hokusai-wave.tif", "night1-mixed.tif"]
    assert [entry.options.alpha for entry in entries] == [1.0, 1.0, 0.7]


def test_json_lines(run, folder: Path) -> None:
    (folder / "in" / "two.tif").write_text("no image")
    done = run("run", table(folder, ALL), "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    jobs = [event for event in events if event["event"] == "job"]
    assert [job["status"] for job in jobs] == ["done", "done", "failed", "failed"]
    assert "two.tif" in jobs[2]["error"] and jobs[0]["output"] == str(folder / "out" / "one-a.tif")
    assert (events[-1]["event"], events[-1]["done"], events[-1]["failed"]) == ("done", 2, 2)
    stages = {event["stage"] for event in events if event["event"] == "progress"}
    assert "1/4 one-a.tif: stylising" in stages


def test_from_python(folder: Path) -> None:
    entries = read_table(table(folder, ALL))
    started = []
    outcomes = list(
        ut.run_batch(entries, ut.Shard(2, 2), starting=lambda number, total, entry: started.append(number))
    )
    assert [(o.status, o.entry.style_name, o.error) for o in outcomes] == [("done", "b", "")] * 2
    assert started == [1, 2]

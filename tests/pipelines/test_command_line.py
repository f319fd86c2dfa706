"""Bad input ends every program of ``pipelines/`` with one sentence and status 2, and leaves no file."""

from __future__ import annotations

import argparse
import errno
import importlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import picture

from urst_tiles.errors import BadInput, BlocksFailed
from urst_tiles.source.picture import write_png

Load = Callable[[str], ModuleType]

#: A command line, and a part of what it says. The files are those of `inputs`.
REFUSED = [
    ("make_scene --size 5x o.tif", "--size must be WIDTHxHEIGHT"),
    ("make_scene --size 0 o.tif", "got '0'"),
    ("make_scene --size -5 o.tif", "got '-5'"),
    ("make_scene --size 4x5x6 o.tif", "got '4x5x6'"),
    ("make_scene --size nan o.tif", "got 'nan'"),
    ("make_scene --size 99999999x99999999 o.tif", "at most 1000000 megapixels"),
    ("make_scene --megapixels nan o.tif", "--megapixels must be a number above 0"),
    ("make_scene --megapixels 1e30 o.tif", "--megapixels must be at most"),
    ("make_scene --size 32 none/o.tif", "there is no folder none"),
    ("make_scene --size 32 empty", "empty is no file"),
    ("make_scene --size 32 --dtype uint16 --compression jpeg o.tif", "8 bits only"),
    ("cut_scenes a.png o", "give what `make_scene.py"),
    ("cut_scenes text.png o", "text.png cannot be read"),
    ("make_style --side 0 o.png", "--side must be at least 2, got 0"),
    ("make_style --side 1.5 o.png", "--side must be a whole number, got '1.5'"),
    ("make_style o.xyz", "ends in .png"),
    ("make_style none/o.png", "there is no folder none"),
    ("before_after none.tif a.png o.png", "there is no file none.tif"),
    ("before_after a.png text.png o.png", "the image text.png cannot be read"),
    ("before_after a.png cut.png o.png", "the image cut.png cannot be read"),
    ("before_after empty a.png o.png", "empty is a folder"),
    ("before_after a.png a.png a.png", "the output a.png is an input too"),
    ("before_after a.png a.png o.png --detail 0.5", "--detail must be Y,X"),
    ("before_after a.png a.png o.png --detail nan,0", "--detail must be Y,X"),
    ("before_after a.png a.png o.png --side -1", "--side must be at least 1"),
    ("gallery o.png --method lite --input none.tif", "there is no file none.tif"),
    ("gallery o.png --method x= --input a.png", "--method must be a name"),
    ("gallery o.png --method lite --input a.png --columns 0", "--columns must be at least 1"),
    ("gallery a.png --method lite --input a.png", "is an input too"),
    ("colour_pieces prints o.png", "give --photo"),
    ("colour_pieces prints o.png --photo text.png", "text.png cannot be read"),
    ("colour_pieces slides none/o.png", "there is no folder none"),
    ("stroke_size none.tif", "there is no file none.tif"),
    ("stroke_size text.png", "text.png"),
    ("stroke_size a.png --side 0", "--side must be at least 8"),
    ("stroke_size a.png --windows x", "--windows must be a whole number"),
    ("name_styles --paintings none --manifest a.csv", "there is no folder none"),
    ("name_styles --paintings empty --manifest none.csv", "there is no file none.csv"),
    ("name_styles --paintings empty --manifest a.csv --output o", "must have the columns file and licence"),
    ("name_styles --paintings empty --manifest cut.png --output o", "cut.png is no CSV file"),
    ("make_constraints none.txt", "there is no file none.txt"),
    ("make_constraints cut.png", "cut.png is no text"),
    ("make_constraints a.csv", "the line 'a,b'"),
    ("activation_statistics --out text.png", "text.png is no folder"),
    ("activation_statistics --out o --images empty", "the folder empty holds no image"),
    ("activation_statistics --out o --images texts", "text.png cannot be read"),
    ("activation_statistics --out o --size 0", "--size must be at least 75"),
    ("activation_statistics --out o --backbones vgg19 --weights vgg19=text.png", "text.png"),
    ("optimize --content a.png --style text.png --out o", "text.png cannot be read"),
    ("optimize --content a.png --style a.png --out text.png", "--out text.png is a file"),
    ("optimize --content a.png --style a.png --out o --rate -1", "--rate must be at least 0"),
    ("refine_painter --content photos --style photos --teacher a.png --out o", "there is no painting photos"),
    ("refine_painter --content photos --style a.png --teacher a.png --out o", "there is no folder a.png"),
    ("refine_painter --content photos --style photos --teacher a.png --styles a.csv --out o", "a.csv must"),
    ("refine_painter --content photos --style photos --teacher a.png --init text.png --out o", "text.png"),
    ("train_adain --content none --style photos --out o --encoder a.png", "there is no folder none"),
    ("train_adain --content empty --style photos --out o --encoder a.png", "the folder empty holds no"),
    ("train_fast --content photos --style a.png --out o --rate nan", "--rate must be a number"),
    ("train_fast --content photos --style a.png --out o --average 2", "--average must be at most 1"),
    ("train_fast --content photos --style a.png --out o --stroke-factor 0", "--stroke-factor must be at"),
    ("train_adain --content photos --style photos --out o --encoder text.png", "text.png"),
    ("train_cin --content photos --style empty --out o", "the folder empty holds no image"),
    ("train_linear --content photos --style photos --out o --part x", "--part must be one of"),
    ("train_lite --content photos --style photos --out o --vgg none --distilled none", "none is missing"),
    ("train_msgnet --content photos --style photos --out o --size 3", "--size must be a multiple"),
    ("train_painter --content photos --style photos --out o --teacher x --styles a.csv", "a.csv must have"),
    ("train_prediction --content photos --style photos --out o --teacher x --held-out y", "no file y of"),
    ("train_prediction --content photos --style empty --out o --teacher x", "the folder empty holds no"),
    ("train_wct --content photos --out o/p --encoder none.pth", "none.pth"),
]  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture, one that is cut off, text with a picture's name, and folders of these."""
    top = tmp_path_factory.mktemp("inputs")
    for name in ("empty", "texts", "photos"):
        (top / name).mkdir()
    write_png(top / "a.png", picture(96, 128))
    (top / "photos" / "a.png").write_bytes((top / "a.png").read_bytes())
    (top / "cut.png").write_bytes((top / "a.png").read_bytes()[:3000])
    for path in (top / "text.png", top / "texts" / "text.png"):
        path.write_text("no picture " * 20)
    (top / "a.csv").write_text("a,b\n1,2\n")
    return top


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_bad_input_is_one_sentence(
    line: str,
    said: str,
    inputs: Path,
    pipeline: Load,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(inputs)
    name, *words = line.split()
    program, before = pipeline(name), files_in(inputs)
    torch.set_num_threads(1)
    assert (program.PROGRAM if hasattr(program, "PROGRAM") else program).main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: ") and said in error and error.count("\n") == 1
    assert files_in(inputs) == before and not (inputs / "o").exists()


def test_every_program_is_tried(pipeline: Load) -> None:
    folder = Path(str(pipeline("make_scene").__file__)).parent
    programs = {path.stem for path in folder.glob("*.py")} - {"command_line"}
    assert programs == {line.split()[0] for line, _ in REFUSED}


@pytest.mark.parametrize(("raised", "status", "said"), [
    (BadInput("the file\nx is bad"), 2, "the file x is bad"),
    (BlocksFailed("2 blocks"), 1, "2 blocks"),
    (OSError(errno.ENOENT, "No such file", "x.txt"), 2, "x.txt: No such file"),
    (subprocess.CalledProcessError(3, ["program", "x"]), 3, "program x failed with exit status 3"),
    (MemoryError(), 1, "too little memory"),
    (KeyboardInterrupt(), 130, "interrupted"),
])  # fmt: skip
def test_errors_become_a_line_and_a_status(
    raised: BaseException, status: int, said: str, pipeline: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise raised

    assert pipeline("command_line").guarded("name", work) == status
    error = capsys.readouterr().err
    assert error.startswith("name: ") and said in error and error.count("\n") == 1


FAULTS: dict[type[Exception], Callable[[], object]] = {
    ZeroDivisionError: lambda: 1 // 0,
    RuntimeError: lambda: torch.ones(2) @ torch.ones(3, 3),
}


def test_a_fault_of_the_program_is_raised(pipeline: Load) -> None:
    for expected, fault in FAULTS.items():
        with pytest.raises(expected):
            pipeline("command_line").guarded("name", fault)


@pytest.mark.parametrize(("text", "size"), [("2048", (2048, 2048)), ("7x5", (5, 7)), ("7X5", (5, 7))])
def test_a_size_is_a_square_or_width_by_height(pipeline: Load, text: str, size: tuple[int, int]) -> None:
    assert pipeline("make_scene").size(text) == size


def test_an_interrupted_scene_leaves_the_one_before(
    pipeline: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_scene, path = pipeline("make_scene"), tmp_path / "scene.tif"
    assert make_scene.main([str(path), "--size", "40"]) == 0
    first = path.read_bytes()

    def interrupted(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(make_scene, "as_dtype", interrupted)
    assert make_scene.main([str(path), "--size", "50"]) == 130
    assert [one.name for one in tmp_path.iterdir()] == ["scene.tif"] and path.read_bytes() == first
    assert capsys.readouterr().err == "make_scene: interrupted\n"


@dataclass(frozen=True)
class Given:
    """Settings of a training."""

    out: Path
    steps: int = 1


def test_a_refused_training_leaves_the_settings_of_the_one_before(pipeline: Load, tmp_path: Path) -> None:
    pipeline("train_fast")
    begun, out = importlib.import_module("training.record").begun, tmp_path / "runs" / "one"

    def refused() -> Iterator[dict[str, float]]:
        (out / "cache").write_text("made on the way")
        raise BadInput("no checkpoint of this training")
        yield {}

    with pytest.raises(BadInput, match="no checkpoint"):
        list(begun(Given(out), refused))
    assert not list(tmp_path.iterdir())
    rows = [{"step": 1.0}, {"step": 2.0}]
    assert list(begun(Given(out), lambda: iter(rows))) == rows
    kept = (out / "settings.txt").read_text()
    assert "steps = 1" in kept
    with pytest.raises(BadInput, match="no checkpoint"):
        list(begun(Given(out, 2), refused))
    assert (out / "settings.txt").read_text() == kept


def test_two_trainings_do_not_write_into_one_folder(pipeline: Load, tmp_path: Path) -> None:
    pipeline("train_fast")
    begun = importlib.import_module("training.record").begun
    rows = [{"step": 1.0}, {"step": 2.0}]
    first = begun(Given(tmp_path / "one"), lambda: iter(rows))
    assert next(first) == rows[0]
    with pytest.raises(BadInput, match="another run writes into"):
        next(begun(Given(tmp_path / "one", 9), lambda: iter(rows)))
    assert "steps = 1" in (tmp_path / "one" / "settings.txt").read_text()
    assert list(begun(Given(tmp_path / "two"), lambda: iter(rows))) == rows
    assert list(first) == rows[1:]
    assert list(begun(Given(tmp_path / "one", 9), lambda: iter(rows))) == rows


def test_a_table_has_its_columns_and_values(pipeline: Load, tmp_path: Path) -> None:
    read_table, path = pipeline("command_line").read_table, tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    assert read_table(path, "a", "b") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    for text in ("", "a\n1\n", "a,b\n", "a,b\n1,2\n3\n"):
        path.write_text(text)
        with pytest.raises(BadInput, match="must have the columns a and b"):
            read_table(path, "a", "b")


def test_what_commas_separate(pipeline: Load) -> None:
    line = pipeline("command_line")
    assert line.several("1,4", line.integer()) == [1, 4]
    with pytest.raises(argparse.ArgumentTypeError, match="'c' is none of a, b"):
        line.several("a, c", known=("a", "b"))

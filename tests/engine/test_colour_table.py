"""A table of all colours gives what a point operation computes, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import urst_tiles as ut
from urst_tiles import nets, planning
from urst_tiles.engine import counted
from urst_tiles.engine import kernel as kernels
from urst_tiles.engine.colour_table import STRIP, ColourTable, Numbers
from urst_tiles.engine.kernel import Kernel, is_looked_up
from urst_tiles.engine.statistics import measure_here
from urst_tiles.geometry import Box
from urst_tiles.source import array_source
from urst_tiles.source import source as sources


@pytest.mark.parametrize("shape", [(1, 1), (700, 300), (2, STRIP + 5), (3, 0)])
def test_numbers_tell_colours_apart(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    numbers, seen = Numbers(), np.full(shape, -1)
    for place, found in numbers.of(image):
        seen[place] = found
    np.testing.assert_array_equal(seen, image.astype(int) @ [1, 256, 65536])


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_a_table_holds_any_operation(bands: int) -> None:
    def operation(rgb: np.ndarray) -> np.ndarray:
        wide = rgb.astype(np.uint16)
        every = [wide[..., 0] ^ wide[..., 2], wide[..., 1] // 3, 255 - wide[..., 2], wide.sum(-1) // 3]
        return np.stack(every[:bands], -1).astype(np.uint8)

    # A view with gaps between its pixels, as a window with a validity has them.
    image = np.random.default_rng(1).integers(0, 256, (90, 170, 4), np.uint8)[:, 10:, :3]
    out = np.empty((*image.shape[:2], bands), np.uint8)
    ColourTable(operation, bands, threads=2).look_up(image, out)
    np.testing.assert_array_equal(out, operation(image))


def frozen(model: str, method: str, image: np.ndarray) -> nets.LocalNet:
    style = nets.reference_style(model, method, 8, None, 3)
    return nets.freeze(style, measure_here(style, array_source(image)))


@pytest.mark.parametrize(("model", "method"), [("colour", "reinhard-lab"), ("stain", "macenko")])
def test_what_is_looked_up_is_what_is_computed(model: str, method: str) -> None:
    image = np.random.default_rng(2).integers(0, 256, (1, 300, 500, 3), np.uint8)
    net, box = frozen(model, method, image[0]), [Box(0, 0, 300, 500)]
    computed, looked_up = Kernel(net), Kernel(net, looks_up=True)
    np.testing.assert_array_equal(computed.run(image, box, box), looked_up.run(image, box, box))


def test_only_colours_of_8_bits_are_looked_up() -> None:
    image = np.random.default_rng(3).integers(0, 256, (60, 60, 3), np.uint8)
    net = frozen("colour", "reinhard", image)
    assert is_looked_up(net, np.uint8, np.uint8)
    assert not is_looked_up(net, np.uint8, np.uint16) and not is_looked_up(net, np.uint16, np.uint8)
    assert not is_looked_up(frozen("colour", "histogram", image), np.uint8, np.uint8)  # has a table of levels
    assert not is_looked_up(nets.freeze(nets.family("identity").build({}, []), {}), np.uint8, np.uint8)


def test_a_job_that_counts_colours_makes_no_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far it moves colours is then measured over all pixels."""
    random = np.random.default_rng(5)
    for name, low in (("in.tif", 0), ("style.tif", 100)):
        smooth = random.integers(low, 256, (30, 40, 3)).repeat(20, 0).repeat(20, 1)
        image = (smooth + random.integers(-20, 1, smooth.shape)).clip(0).astype(np.uint8)
        tifffile.imwrite(tmp_path / name, image)
    made: list[object] = []
    averages = sources.averages_of

    def noted(facts: Any, *given: Any) -> Any:
        made.append(facts.path.name)
        return averages(facts, *given)

    monkeypatch.setattr(sources, "averages_of", noted)

    def job(output: str, **options: object) -> dict[str, object]:
        given = {"model": "colour", "method": "monge-kantorovich", "style": tmp_path / "style.tif"} | options
        return dict(ut.stylize(tmp_path / "in.tif", tmp_path / output, **given).moved)

    plain = job("plain.tif")
    assert made.count("in.tif") == 1
    monkeypatch.setattr(counted, "FEWEST", 1)
    made.clear()
    exact = job("counted.tif")
    assert "in.tif" not in made
    assert exact["moved"] == pytest.approx(plain["moved"], rel=0.05)
    assert exact["before"] == pytest.approx(plain["before"], abs=0.5)
    one, other = (tifffile.imread(tmp_path / name) for name in ("plain.tif", "counted.tif"))
    np.testing.assert_array_equal(one, other)


def test_what_measures_nothing_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "FEWEST", 1)
    image = np.random.default_rng(6).integers(0, 256, (64, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", image)
    corners = [f"{r} {g} {b}" for b in (0, 1) for g in (0, 1) for r in (0, 1)]
    (tmp_path / "same.cube").write_text("\n".join(["LUT_3D_SIZE 2", *corners, ""]))
    given = {"model": "colour", "method": "lut", "statistics": "exact"}
    ut.stylize(tmp_path / "in.tif", tmp_path / "out.tif", tmp_path / "same.cube", **given)
    assert np.abs(tifffile.imread(tmp_path / "out.tif").astype(int) - image).max() <= 1


def test_a_large_job_looks_colours_up_and_plans_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, made = np.random.default_rng(4), []
    for name in ("in.tif", "style.tif"):
        tifffile.imwrite(tmp_path / name, random.integers(0, 256, (300, 400, 3), np.uint8))

    def job(output: str) -> bytes:
        style, choices = tmp_path / "style.tif", {"model": "colour", "method": "reinhard"}
        ut.stylize(tmp_path / "in.tif", tmp_path / output, style, **choices, provenance=False)
        return (tmp_path / output).read_bytes()

    computed = job("computed.tif")
    monkeypatch.setattr(planning, "WORTH_A_TABLE", 1)
    table = kernels.ColourTable
    monkeypatch.setattr(kernels, "ColourTable", lambda *given: made.append(True) or table(*given))
    assert job("looked_up.tif") == computed and made == [True]

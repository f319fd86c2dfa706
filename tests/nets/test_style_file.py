"""Style files: a style of the painter in a file of its own, wherever a style may stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from helpers import picture
from safetensors.torch import save

import urst_tiles as ut
from urst_tiles import weights
from urst_tiles.api.table import read_table
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.nets import low_rank, painter, painter_styles, style_file, style_rows
from urst_tiles.options import Options
from urst_tiles.recipe import recipe_of

STATES = painter.seeded(0, 1 / 8)
STATE = STATES[painter.FILE]
NETWORK = painter_styles.network_of(STATE)


def row_of(index: int) -> dict[str, torch.Tensor]:
    """The tensors of one of the styles of the seeded network."""
    return {
        k: STATE[k][index]
        for k in painter_styles.row_shapes(painter_styles.form_of(STATE), low_rank.rank_of(STATE))
    }


def write(path: Path, network: str = NETWORK, index: int = 1, **changes: Any) -> Path:
    row = {**row_of(index), **changes}
    path.write_bytes(style_file.to_bytes(row, "painter", network, {"painting": "mine.jpg"}))
    return path


def built(*styles: tuple[Any, float]) -> painter.PainterStyle:
    named = (
        (style_file.load_style_file(one) if isinstance(one, Path) else style_rows.style_named(one), weight)
        for one, weight in styles
    )
    return painter.build(STATES, list(named))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights of the seeded network, a style file of its second style, and an image."""
    (tmp_path / "seeded.safetensors").write_bytes(save(STATE))
    (tmp_path / "weights").mkdir()
    weights.add("painter", {painter.FILE: tmp_path / "seeded.safetensors"}, tmp_path / "weights")
    write(tmp_path / "mine.style")
    tifffile.imwrite(tmp_path / "scene.tif", picture(200, 240), photometric="rgb")
    return tmp_path


def painted(folder: Path, style: Any, **changes: Any) -> np.ndarray:
    given = {"model": "painter", "weights": folder / "weights", "threads": 1, "precision": "float32"}
    ut.stylize(folder / "scene.tif", folder / "out.tif", style, **{**given, "overwrite": True, **changes})
    return tifffile.imread(folder / "out.tif")


def test_a_style_in_a_file_is_the_style(tmp_path: Path) -> None:
    one, same = built((write(tmp_path / "a.style"), 1.0)), built(("noon", 1.0))
    assert one.row.keys() == same.row.keys() and one.fingerprint == same.fingerprint
    assert all(torch.equal(t, same.row[k]) for k, t in one.row.items())


def test_styles_in_files_and_names_are_mixed_by_weight(tmp_path: Path) -> None:
    files = write(tmp_path / "a.style", index=1), write(tmp_path / "b.style", index=2)
    one = built((files[0], 1.0), ("dawn", 2.0), (files[1], 1.0)).row
    same = built(("noon", 1.0), ("dawn", 2.0), ("night", 1.0)).row
    assert all(torch.allclose(t, same[k], rtol=1e-12) for k, t in one.items())


def test_a_style_file_paints_as_its_style_everywhere(folder: Path) -> None:
    file = str(folder / "mine.style")
    assert np.array_equal(painted(folder, file), painted(folder, "noon"))
    mixed = painted(folder, [(file, 1.0), ("dawn", 3.0)])
    assert np.array_equal(mixed, painted(folder, [("noon", 1.0), ("dawn", 3.0)]))
    assert not np.array_equal(mixed, painted(folder, "noon"))
    regions = np.ones((20, 24), np.uint8)
    regions[:, 12:] = 2
    tifffile.imwrite(folder / "mask.tif", regions)
    one, same = (painted(folder, {1: one, 2: "night"}, mask=folder / "mask.tif") for one in (file, "noon"))
    assert np.array_equal(one, same)


def test_a_table_of_jobs_takes_style_files(folder: Path) -> None:
    (folder / "jobs.toml").write_text(
        'inputs = "scene.tif"\noutput = "{stem}-{style}.tif"\nstyles = ["mine.style", "dawn",'
        ' {name = "both", mix = [["mine.style", 1], ["dawn", 1]]}]\n[options]\nmodel = "painter"\n'
        'weights = "weights"\n'
    )
    jobs = read_table(folder / "jobs.toml")
    assert [job.output.name for job in jobs] == ["scene-mine.tif", "scene-dawn.tif", "scene-both.tif"]
    recipe = recipe_of(jobs[2].style, jobs[2].options)
    assert recipe.styles == ((folder / "mine.style", 1.0), ("dawn", 1.0)) and len(recipe.stamps) == 1
    said = json.loads(recipe.told()["styles"])
    assert said[0]["name"] == "mine.style" and len(said[0]["sha256"]) == 64


def test_a_style_of_another_network_is_refused(folder: Path) -> None:
    other = {**STATE, "enter.bias": STATE["enter.bias"] + 1}
    assert painter_styles.network_of(other) != NETWORK
    write(folder / "other.style", painter_styles.network_of(other))
    with pytest.raises(BadInput, match=r"other\.style was learned with other weights of the network"):
        painted(folder, str(folder / "other.style"))
    assert not (folder / "out.tif").exists()


def test_a_style_of_before_has_even_tones(tmp_path: Path) -> None:
    """Files of versions 1 and 2 do not say how skewed the painting's luminance is."""
    row = {k: t for k, t in row_of(1).items() if k != "colour.skewness"}
    (tmp_path / "old.style").write_bytes(style_file.to_bytes(row, "painter", NETWORK, {}))
    one, now = built((tmp_path / "old.style", 1.0)), built(("noon", 1.0))
    assert one.row["colour.skewness"] == 0 and one.tones is None and now.tones is not None
    assert one.row.keys() == now.row.keys()


def test_a_style_of_before_paints_the_coarsest_level_once(folder: Path) -> None:
    """Files of versions 1 to 3 have no parameters for a second pass; nor has what is mixed with them."""
    rows = {k: t[:2] if k in painter_styles.PER_STYLE else t for k, t in row_of(1).items()}
    old = folder / "old.style"
    old.write_bytes(style_file.to_bytes(rows, "painter", NETWORK, {}))
    assert not built((old, 1.0)).twice and built(("noon", 1.0)).twice
    mixed, same = built((old, 1.0), ("dawn", 1.0)), built(("noon", 1.0), ("dawn", 1.0))
    assert not mixed.twice and mixed.row["gamma"].shape[0] == 2
    assert all(torch.allclose(mixed.row[k], same.row[k][:2]) for k in painter_styles.PER_STYLE)
    tifffile.imwrite(folder / "mask.tif", np.repeat(np.array([[1, 2]], np.uint8), 20, 0).repeat(12, 1))
    both = painted(folder, {1: str(old), 2: "night"}, mask=folder / "mask.tif")
    assert both.shape == (200, 240, 3)
    assert not np.array_equal(painted(folder, str(old)), painted(folder, "noon"))


def test_rows_of_styles_are_no_part_of_the_network() -> None:
    more = {k: torch.cat([STATE[k], STATE[k][:1]]) for k in row_of(0)}
    names = {"styles": style_rows.encoded(["dawn", "noon", "night", "dusk"])}
    assert painter_styles.network_of({**STATE, **more, **names}) == NETWORK


def test_what_is_no_style_file_is_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.style").read_bytes()
    flipped = bytearray(good)
    flipped[-1] ^= 1
    nan = {"colour.mean": torch.full((3,), torch.nan)}
    later = save(row_of(0), {"urst_tiles": json.dumps({"format": "urst-tiles style", "version": 5})})
    wrong: list[tuple[bytes, type[Exception], str]] = [
        (b"", BadInput, "no style file, or it is damaged"),
        (good[:100], BadInput, "no style file, or it is damaged"),
        (good[:-7], BadInput, "no style file, or it is damaged"),
        (bytes(flipped), BadWeights, "is damaged: its numbers"),
        (save(row_of(0)), BadInput, "is no style file"),
        (later, BadInput, "style file of version 5, and this program knows version 4"),
        (style_file.to_bytes({**row_of(1), **nan}, "painter", NETWORK, {}), BadWeights, "is damaged"),
    ]
    for content, kind, said in wrong:
        (tmp_path / "bad.style").write_bytes(content)
        with pytest.raises(kind, match=rf"bad\.style.*{said}"):
            style_file.load_style_file(tmp_path / "bad.style")
    with pytest.raises(MissingFile, match=r"nowhere\.style"):
        recipe_of(str(tmp_path / "nowhere.style"), Options(model="painter"))
    with pytest.raises(MissingFile, match=r"nowhere\.jpg"):
        recipe_of(str(tmp_path / "nowhere.jpg"), Options(model="painter"))
    fewer = {k: t for k, t in row_of(1).items() if k != "beta"}
    (tmp_path / "bad.style").write_bytes(style_file.to_bytes(fewer, "painter", NETWORK, {}))
    with pytest.raises(BadWeights, match="has not the tensors"):
        built((tmp_path / "bad.style", 1.0))
    for exponent in (torch.tensor(3, dtype=torch.int8), torch.zeros(5, dtype=torch.int8)):
        with pytest.raises(BadWeights, match="has not the tensors"):
            built((write(tmp_path / "bad.style", **{"change.enter.exponent": exponent}), 1.0))


@pytest.mark.parametrize("model", ["lite", "microast", "cin"])
def test_other_networks_say_who_paints_it(tmp_path: Path, model: str) -> None:
    file = write(tmp_path / "mine.style")
    with pytest.raises(BadInput, match=r"mine\.style is a learned style.*give --model painter"):
        recipe_of(str(file), Options(model=model))


def test_it_has_no_colours_to_give_away(folder: Path) -> None:
    with pytest.raises(BadInput, match="--preserve-color coral"):
        recipe_of(str(folder / "mine.style"), Options(model="painter", preserve_color="coral"))

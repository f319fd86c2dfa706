"""Options say what is wrong with a value, and suggest a near name."""

from __future__ import annotations

import pytest

from urst_tiles.errors import BadInput
from urst_tiles.options import Options, choices


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"statistics": "median"}, "one of auto, thumbnail, sampled, exact, local, got 'median'"),
        ({"seam": "tape"}, "one of auto, crop, blend, got 'tape'"),
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"quality": 0}, "between 1 and 100"),
        ({"tile": 0}, "--tile must be at least 1"),
        ({"style_size": 0}, "--style-size"),
        ({"halo": -4}, "--halo"),
        ({"stile": 3}, "did you mean 'tile'"),
        ({"zzz": 3}, "known: alpha"),
    ],
)
def test_a_bad_value_is_one_sentence(change: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Options.of(None, change)


def test_ways_to_make_seams_are_accepted_but_not_advertised() -> None:
    made = Options.of(None, {"statistics": "tile", "seam": "cut"})
    assert (made.statistics, made.seam) == ("tile", "cut")
    assert "tile" not in choices()["statistics"] and "cut" not in choices()["seam"]


@pytest.mark.parametrize(
    ("word", "name"), [("COG", "tif"), (".png", "png"), ("JPEG", "jpg"), ("zarr", "ome.zarr")]
)
def test_formats_have_the_words_of_other_programs_too(word: str, name: str) -> None:
    assert Options.of(None, {"format": word}).format == name


def test_changes_leave_the_rest() -> None:
    given = Options(alpha=0.5)
    assert Options.of(given, {"tile": 256}) == Options(alpha=0.5, tile=256)


def test_closed_words_are_found() -> None:
    assert choices()["compression"] == ("deflate", "jpeg", "lzw", "zstd", "webp")
    words = {"statistics", "statistics_of", "precision", "compression", "dtype", "seam", "preserve_color"}
    assert set(choices()) == words | {"tiles", "format", "predictor", "overview_resampling", "bigtiff"}

"""Lengths with units: what users write, and how lengths are said."""

from __future__ import annotations

import pytest

from urst_tiles.errors import BadInput
from urst_tiles.lengths import in_words, metres, parse_stroke
from urst_tiles.options import Options, from_table


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.5mm", 5e-4), ("300m", 300), ("300 m", 300), (".5 µm", 5e-7), ("20um", 2e-5), ("20 μm", 2e-5),
        ("20 microns", 2e-5), ("1.5km", 1500), ("1e3ft", 304.8), ("2 feet", 0.6096), ("3in", 0.0762),
        ("2 inches", 0.0508), ("40 Meters", 40), ("1mi", 1609.344), ("250nm", 2.5e-7), ("2cm", 0.02),
        ("20 micrometers", 2e-5), ("3 Å", 3e-10), ("2 mils", 5.08e-5),
    ],
)  # fmt: skip
def test_a_length_is_read_as_users_write_it(text, wanted):
    assert metres(text) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "m", "0m", "-3m", "3", "3 parsecs", "0,5mm", "nanm", "infm", "1e999m", "3m3"]
)
def test_what_is_no_length_is_refused(text):
    with pytest.raises(BadInput, match="length"):
        metres(text)


def test_a_length_in_words():
    said = [in_words(x) for x in (5e-4, 300, 2.5e-7, 12345, 0.35, 96, 4.2e-8)]
    assert said == ["0.5 mm", "300 m", "0.25 µm", "12.3 km", "0.35 m", "96 m", "42 nm"]


def test_the_option_takes_a_number_a_length_or_the_word():
    assert [parse_stroke(text) for text in ("picture", "8", " 300 m ")] == [None, 8, "300 m"]
    assert Options(model="painter", stroke="0.5mm").stroke == "0.5mm"
    assert (Options(stroke="picture").stroke, Options(stroke="4").stroke) == (None, 4)
    assert from_table("stroke", "2km", None) == "2km" and from_table("stroke", 4, None) == 4
    for wrong in ("3", "large", "0mm", "2.5", 3, 0, 2.5):
        with pytest.raises(BadInput, match="--stroke"):
            Options(stroke=wrong)

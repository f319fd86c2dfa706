"""The parts of the studio that need no server: its memory, its turns, its looks."""

from __future__ import annotations

import threading

import pytest

from urst_tiles.errors import BadInput
from urst_tiles.kept import Kept
from urst_tiles.options import Options
from urst_tiles.studio.asked import Asked, first_model
from urst_tiles.studio.lane import Dropped, Lane, check_wanted
from urst_tiles.studio.pictures import exact_levels, levels_of, tile_box


def test_what_was_used_last_is_kept_within_the_limit() -> None:
    kept: Kept[bytes] = Kept(10, len)
    for key, size in (("a", 4), ("b", 4)):
        kept.put(key, bytes(size))
    assert kept.get("a") is not None  # used again, so that b goes first
    kept.put("c", bytes(5))
    assert kept.get("b") is None and kept.get("a") is not None and kept.weight == 9
    kept.put("c", bytes(1))
    assert kept.weight == 5
    assert kept.put("huge", bytes(11)) == bytes(11)
    assert kept.get("huge") is None and kept.weight <= 10
    assert [kept.made("new", lambda: b"1"), kept.made("new", lambda: b"2")] == [b"1", b"1"]


def test_the_newest_goes_first_and_what_nobody_waits_for_is_not_made() -> None:
    lane, gate, made = Lane(1, "test"), threading.Event(), list[str]()
    begun = threading.Event()
    first = lane.submit(lambda: (begun.set(), gate.wait(30)))
    assert begun.wait(30)
    futures = {
        name: lane.submit(lambda name=name: made.append(name), urgency)  # type: ignore[misc]
        for name, urgency in (
            ("old", 1),
            ("dropped", 1),
            ("new", 1),
            ("gallery", 0),
            ("its next", 0),
            ("newest", 1),
        )
    }
    assert futures["dropped"].cancel()
    gate.set()
    futures["its next"].result(30)
    assert made == ["newest", "new", "old", "gallery", "its next"] and first.done()
    lane.close()


def test_a_call_ends_where_it_looks_once_nobody_waits() -> None:
    lane, gate, begun = Lane(1, "test"), threading.Event(), threading.Event()

    def long() -> None:
        check_wanted()
        begun.set()
        gate.wait(30)
        check_wanted()

    first, second = lane.submit(long), lane.submit(lambda: check_wanted())
    assert begun.wait(30)
    assert not lane.drop(first) and lane.drop(lane.submit(long))
    gate.set()
    with pytest.raises(Dropped):
        first.result(30)
    second.result(30)  # what was dropped is forgotten with its call
    lane.close()
    check_wanted()  # in a thread of no lane


def test_errors_reach_who_waits_and_a_closed_lane_makes_nothing() -> None:
    lane = Lane(1, "test")
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 / 0).result(30)
    assert lane.submit(lambda: 5).result(30) == 5
    lane.close()


def test_a_look_is_its_state() -> None:
    look = Asked("a folder/bild ä.tif", "hokusai-wave", alpha=40, colours="luminance")
    assert Asked.from_state(look.state) == look and "/" not in look.state and "=" not in look.state
    assert look.flags() == ["--model", "lite", "--alpha", "0.4", "--preserve-color", "luminance"]
    assert look.styles == (("hokusai-wave", 100),) and look.paints
    mixed = Asked("a.tif", "hokusai-wave=60,:0123456789abcdef=40", stroke=4, region="1,2,30,40")
    assert Asked.from_state(mixed.state) == mixed and mixed.painting.region == ""
    assert mixed.styles == (("hokusai-wave", 60), (":0123456789abcdef", 40))
    assert mixed.options().region == (1, 2, 30, 40) and mixed.options().stroke == 4
    assert look.options().alpha == 0.4
    with pytest.raises(BadInput):
        Asked.from_state(look.state[:-4])


def test_what_paints_at_first_is_what_paints_in_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("URST_TILES_MODEL")
    assert Asked("a.tif", "hokusai-wave").model == first_model() == Options().network == "painter"
    for named, first in (("lite", "lite"), ("adain", "painter")):
        monkeypatch.setenv("URST_TILES_MODEL", named)
        assert Asked.of({"image": "a.tif"}).model == first_model() == first


def test_levels_and_their_tiles() -> None:
    assert [levels_of((1, n)) for n in (1, 2, 3, 512, 513)] == [1, 2, 3, 10, 11]
    assert exact_levels() == 2
    box = tile_box((700, 1300), 1, 1, 0)
    assert (box.y0, box.x0, box.y1, box.x1) == (0, 512, 350, 650)
    for halvings, x, y in ((1, 2, 0), (0, 0, 2), (12, 0, 0), (-1, 0, 0), (0, -1, 0)):
        with pytest.raises(BadInput):
            tile_box((700, 1300), halvings, x, y)

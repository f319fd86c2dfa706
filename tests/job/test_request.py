"""A saved job as JSON: what was saved is what is read, and any edit is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.api.stylize import plan_job
from urst_tiles.errors import JobDiffers
from urst_tiles.job.request import VERSION, Request, chosen
from urst_tiles.options import Options

OPTIONS = Options(model="identity", tile=128, block=256, bands=(1, 2, 3), job_dir=Path("job"), alpha=0.5)


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("request")
    scene = geotiff(folder / "scene.tif", picture(300, 400))
    plan, _ = plan_job(scene, folder / "out.tif", scene, replace(OPTIONS, job_dir=None))
    return Request(scene, folder / "out.tif", {"mixture": [["a", 1.0]]}, OPTIONS, plan, "f" * 64)


def test_what_was_saved_is_read(request_: Request, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(request_.to_json())
    found = Request.from_json(path)
    assert found == replace(request_, options=replace(OPTIONS, job_dir=Path("job").absolute()))
    assert Request.from_values(json.loads(request_.to_json()), path) == found


def test_only_what_differs_from_the_defaults_is_saved() -> None:
    assert chosen(Options()) == {}
    values = chosen(OPTIONS)
    assert values == {
        "model": "identity", "tile": 128, "block": 256, "bands": [1, 2, 3], "alpha": 0.5,
        "job_dir": str(Path("job").absolute()),
    }  # fmt: skip


def changes() -> dict[str, Any]:
    return {
        "version": lambda v: v | {"version": VERSION + 1},
        "version of before": lambda v: v | {"version": VERSION - 1},
        "output": lambda v: v | {"output": "/elsewhere.tif"},
        "input": lambda v: v | {"input": "/elsewhere.tif"},
        "net": lambda v: v | {"net": "0" * 64},
        "styles": lambda v: v | {"styles": {}},
        "an option": lambda v: v | {"options": v["options"] | {"alpha": 0.6}},
        "the plan": lambda v: v | {"plan": v["plan"] | {"threads": 99}},
        "identity": lambda v: v | {"plan": v["plan"] | {"identity": v["plan"]["identity"] | {"source": "x"}}},
        "one more": lambda v: v | {"more": 1},
        "the digest": lambda v: v | {"sha256": "0" * 64},
        "no digest": lambda v: {k: w for k, w in v.items() if k != "sha256"},
        "no plan": lambda v: {k: w for k, w in v.items() if k != "plan"},
        "no object": lambda v: [v],
        "nothing": lambda v: None,
    }


@pytest.mark.parametrize("name", changes())
def test_every_edit_is_noticed(request_: Request, tmp_path: Path, name: str) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(changes()[name](json.loads(request_.to_json()))))
    with pytest.raises(JobDiffers, match="save it anew") as caught:
        Request.from_json(path)
    assert str(path) in str(caught.value) and isinstance(caught.value, ut.UrstError)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(content)
    with pytest.raises(JobDiffers, match="is no saved job"):
        Request.from_json(path)
    with pytest.raises(FileNotFoundError):
        Request.from_json(tmp_path / "gone.json")


def test_the_layout_of_the_file_does_not_matter(request_: Request, tmp_path: Path) -> None:
    """Spaces and order are no edit."""
    values = json.loads(request_.to_json())
    path = tmp_path / "request.json"
    path.write_text(json.dumps(dict(reversed(values.items())), indent=7))
    assert Request.from_json(path).plan == request_.plan

"""Transfer of colours and stains by several processes, in shares of a saved plan and from a table of jobs.

The bytes are those of one run.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from colours import E2, H2, slide, written
from helpers import sha

import urst_tiles as ut
from urst_tiles.job.shard import Shard

#: What is asked for, by name; the image has 2 x 3 blocks.
JOBS: dict[str, dict[str, object]] = {
    "histogram": {"model": "colour", "method": "histogram"},
    "bands": {"model": "colour", "method": "monge-kantorovich", "bands": ("all",)},
    "macenko": {"model": "stain", "method": "macenko"},
    "vahadane": {"model": "stain", "method": "vahadane", "valid": "tissue"},
    "maps": {"model": "stain", "method": "vahadane", "stains": "E,H"},
}
GRID = {"block": 256, "tile": 128, "threads": 1}


@pytest.fixture
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, ut.Options, str]:
    """The image, its reference, the options, and the hash of what one run makes."""
    input = written(tmp_path / "in.tif", slide(500, 700, 0))
    reference = written(tmp_path / "ref.tif", slide(200, 200, 7, (H2, E2), (0.8, 1.1)))
    options = ut.Options(**JOBS[request.param], **GRID)
    ut.stylize(input, tmp_path / "whole.tif", reference, options)
    return input, reference, options, sha(tmp_path / "whole.tif")


@pytest.mark.parametrize("asked", JOBS, indirect=True)
def test_a_saved_plan_in_two_shares_has_the_same_bytes(asked, tmp_path: Path) -> None:
    input, reference, options, whole = asked
    job, output = tmp_path / "job", tmp_path / "out.tif"
    ut.save_job(job, input, output, reference, options)
    for number in (2, 1):
        ut.work_job(job, Shard(number, 2))
    ut.assemble_job(job)
    assert sha(output) == whole


@pytest.mark.slow
@pytest.mark.parametrize("asked", JOBS, indirect=True)
def test_two_processes_have_the_same_bytes(asked, tmp_path: Path) -> None:
    input, reference, options, whole = asked
    ut.stylize(input, tmp_path / "out.tif", reference, options, workers=2)
    assert sha(tmp_path / "out.tif") == whole


TABLE = """
inputs = "in.tif"
styles = ["ref.tif"]
output = "out.tif"

[options]
block = 256
tile = 128
threads = 1
"""


def line(name: str, value: object) -> str:
    return f"{name} = {list(value) if isinstance(value, tuple) else repr(value)}\n".replace("'", '"')


@pytest.mark.parametrize("asked", JOBS, indirect=True)
def test_a_table_of_jobs_has_the_same_bytes(request: pytest.FixtureRequest, asked, tmp_path: Path) -> None:
    name = request.node.callspec.params["asked"]
    (tmp_path / "jobs.toml").write_text(TABLE + "".join(line(*pair) for pair in JOBS[name].items()))
    (outcome,) = ut.run_batch(ut.read_table(tmp_path / "jobs.toml"))
    assert outcome.error == ""
    assert sha(tmp_path / "out.tif") == asked[3]

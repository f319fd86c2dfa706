"""Times the stages of a block one after the other; the model of cost at scale is made from these times.

``python benchmarks/block_stages.py SCENE [--block 4096]`` measures in this process and prints JSON lines;
`stages_of` runs the program in one process, or in several at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from harness import WORK, Parser, existing_file, integer, program, style_image

#: Blocks that are measured, after a first block to warm up.
SAMPLES = 3


@dataclass(frozen=True)
class Stages:
    """The time that the stages of a block take with one compute thread.

    Attributes
    ----------
    read, compute, encode : processor seconds of these stages.
    publish : seconds for which publishing the part file waits for the disk.
    """

    read: float
    compute: float
    encode: float
    publish: float


class TimedReader:
    """A reader that adds up the processor seconds of its reads."""

    def __init__(self, source: Any) -> None:
        from urst_tiles.source.windows import WindowReader

        self._reader, self.seconds = WindowReader(source), 0.0
        self.channels = self._reader.channels

    def padded(self, box: Any) -> Any:
        """The same as `WindowReader.padded`."""
        started = time.process_time()
        pixels = self._reader.padded(box)
        self.seconds += time.process_time() - started
        return pixels


def stages_of(scene: Path, block: int, processes: int) -> tuple[Stages, float]:
    """The stages of a block, and the seconds from the start of a dask worker to its first block.

    Both are medians, over the blocks of ``processes`` processes that run at once. ``block`` is the side of a
    block in pixels.
    """
    command = [sys.executable, __file__, str(scene), "--block", str(block)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(processes)
    ]
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("measuring the stages of a block failed, see above")
    lines = [[json.loads(line) for line in output.splitlines() if line.startswith("{")] for output in outputs]
    blocks = [Stages(**line) for output in lines for line in output[1:]]
    middle = {name: median(getattr(stages, name) for stages in blocks) for name in asdict(blocks[0])}
    return Stages(**middle), median(output[0]["start"] for output in lines)


@program
def main(words: Sequence[str]) -> None:
    """Print the seconds until the first block can begin, then the stages of each block."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=existing_file)
    parser.add_argument("--block", type=integer(), default=4096)
    arguments = parser.parse_args(words)
    import distributed  # noqa: F401 (a worker has imported it before the first task)

    begun = time.perf_counter()
    import urst_tiles as ut
    from urst_tiles.api.stylize import parts_of
    from urst_tiles.engine.block import stylize_block
    from urst_tiles.engine.loaded import kernel_of

    imported = time.perf_counter() - begun
    source = ut.open_source(arguments.scene)
    options = ut.Options(model="lite", threads=1, block=arguments.block)
    recipe = ut.recipe_of(style_image(), options)
    plan = ut.make_plan(source, recipe, ut.build_style(recipe), options)
    source = source.prepare(None)
    with TemporaryDirectory(dir=WORK) as folder, ut.cluster() as on:
        job = ut.Job(Path(folder))
        ut.freeze(recipe, ut.measure(recipe, source, plan, job, on)).save(job.net)
        begun = time.perf_counter()
        kernel, parts = kernel_of(job.net, plan), parts_of(plan, source, job)
        print(json.dumps({"start": imported + time.perf_counter() - begun}))
        for sample in range(1 + SAMPLES):
            index = sample % len(plan.grid)
            reader: Any = TimedReader(source)
            begun = time.process_time()
            pixels = stylize_block(kernel, reader, plan, plan.grid.block_box(index))
            made, clock = time.process_time(), time.perf_counter()
            parts.write(index, pixels)
            encode = time.process_time() - made
            # The wall time less the time in which the encoders work side by side.
            publish = max(0.0, time.perf_counter() - clock - encode / plan.encoders)
            if sample:
                compute = made - begun - reader.seconds
                print(json.dumps(asdict(Stages(reader.seconds, compute, encode, publish))))


if __name__ == "__main__":
    sys.exit(main())

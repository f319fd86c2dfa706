"""Style transfer by optimising the image itself (Gatys et al. 2016), in memory or tile by tile on disk.

    python pipelines/optimize.py --content PHOTO.jpg --style PAINTING.jpg --out runs/one --size 512 \
        --backbone vgg19 --backbone-weights vgg19-dcbb9e9d.pth
    python pipelines/optimize.py --content SCENE.tif --style PAINTING.jpg --out runs/large --tile 1024 \
        --optimizer adam --steps 300 --scales 4 --backbone vgg19 --backbone-weights vgg19-dcbb9e9d.pth

The folder ``--out`` receives ``picture.tif`` (a pyramidal TIFF), ``preview.png``, ``losses.csv`` and the
state. The same command, given again, continues where the last call stopped, and gives the same result to the
bit. Any setting may stand in a TOML file (``--settings``) or on the command line, which takes precedence.

With ``--scales N`` the image is optimised from coarse to fine: halved N - 1 times first, then at each finer
scale from the enlarged picture of the one above, whose strokes so keep their proportion to the whole
(`optimization/scales.py`). Each coarse scale has a folder of its own in ``--out``. On large images this is
the reference for what `--model painter` does in one go.

With ``--tile`` the gradient is still that of the whole image. It is computed in two passes over the tiles
(`optimization/tiles.py`), or three with ``--smoothing map``, and memory does not grow with the image.

`optimization/objective.py` says what is minimised, and how the weights relate to those of Gatys and of SWAG.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from command_line import guarded
from numpy.typing import NDArray
from optimization import memory, pictures, whole
from optimization.descent import Adam
from optimization.files import Entry, Files
from optimization.objective import Parts, Terms, Whole
from optimization.scales import ALONE, PICTURE, Scale, coarse_to_fine
from optimization.scene import Scene, begin
from optimization.settings import Settings
from optimization.tiles import Pixels, Tiled
from training.command import set_threads
from training.loop import Row
from training.record import FIRST, begun, record
from training.settings import parse

from urst_tiles.geometry import Box
from urst_tiles.machine import available_memory
from urst_tiles.storage.publish import check_room, megabytes

COLUMNS = (*FIRST, "content", "style", "variation")


# In memory


def optimize_whole(settings: Settings, scene: Scene) -> Iterator[Row]:
    """Optimise with the whole image in memory, and write the picture; yields each evaluation's losses."""
    need = memory.needs(scene.net, scene.terms, scene.reach.minimum, scene.like)
    images = 2 * settings.history + 8 if settings.optimizer == "lbfgs" else 8
    area, size = scene.image.area, scene.like.element_size()
    peak = memory.BASE_BYTES + need(area) + images * 3 * size * area
    print(f"memory: {megabytes(peak)} for {area / 1e6:.1f} megapixels and {images} copies", flush=True)
    if settings.device == "cpu":
        memory.check(peak, available_memory(), "give --tile and --optimizer adam, or a smaller --size")
    descent = begin_whole(settings, scene)
    path, started = settings.out / "checkpoint.pt", time.perf_counter()

    def read(box: Box) -> NDArray[Any]:
        return descent.x.detach()[(0, slice(None), *box.slices)].cpu().numpy()

    saved = shown = descent.step
    while descent.step < settings.steps:
        first = descent.step + 1
        for number, parts in enumerate(descent.advance(), first):
            yield row_of(number, started, scene.terms, parts)
        last = descent.step >= settings.steps
        if last or descent.step // settings.save_every > saved // settings.save_every:
            whole.save(path, descent, scene.facts)
            saved = descent.step
        if last or descent.step // settings.sample_every > shown // settings.sample_every:
            pictures.write_preview(settings.out / "preview.png", read, scene.source.shape)
            shown = descent.step
    finish(settings, scene, read, descent.step)


def begin_whole(settings: Settings, scene: Scene) -> whole.Descent:
    """The descent at the first step, or at that of the checkpoint."""
    loss = Whole.of(scene.net, scene.terms, scene.grams, scene.content(scene.image))
    x = scene.tensor(scene.start(scene.image))
    descent: whole.Descent
    if settings.optimizer == "adam":
        descent = whole.ByAdam(loss, x, Adam(settings.rate, settings.steps, settings.cooldown))
    else:
        descent = whole.ByLBFGS(loss, x, settings.steps, settings.history)
    if (settings.out / "checkpoint.pt").exists():
        whole.load(settings.out / "checkpoint.pt", descent, scene.facts)
    return descent


def row_of(step: int, started: float, terms: Terms, parts: Parts) -> Row:
    """A line of ``losses.csv``; ``started`` is a reading of ``time.perf_counter``."""
    seconds = round(time.perf_counter() - started, 1)
    return {
        "step": step,
        "seconds": seconds,
        "total": terms.total(parts).item(),
        **{k: t.item() for k, t in parts.items()},
    }


# On disk


def optimize_tiles(settings: Settings, scene: Scene) -> Iterator[Row]:
    """Optimise tile by tile with the image on disk, and write the picture; yields the losses of each step."""
    files = Files(settings.out / "state", scene.source.shape, settings.precision)
    announce(settings, scene, files)
    tiled = Tiled(
        scene.net,
        scene.terms,
        scene.reach,
        scene.grams,
        scene.content,
        scene.source.shape,
        settings.tile,
    ).ready()
    files.begin(scene.facts, scene.start, tiled.cores)
    last = files.resume()
    step = 0 if last is None else last.step + (last.tile + 1 == len(tiled.cores))
    for row in descend(settings, scene, tiled, files, last):
        step = int(row["step"])
        yield row
        if step % settings.sample_every == 0 or step == settings.steps:
            pictures.write_preview(settings.out / "preview.png", reading(files, step), files.shape)
    finish(settings, scene, reading(files, step), step)


def reading(files: Files, step: int) -> pictures.Boxes:
    """A function that reads boxes of the image as it is at the beginning of ``step``."""
    return lambda box: files.read(files.image(step), box)


def announce(settings: Settings, scene: Scene, files: Files) -> None:
    """Print how much memory and disk the run takes, and raise an error if that does not fit."""
    window = scene.reach.window(Box(0, 0, settings.tile, settings.tile), Box(0, 0, 1 << 30, 1 << 30), 2)
    side = window.y1 + window.y1 - settings.tile
    area = min(side, scene.source.shape[0]) * min(side, scene.source.shape[1])
    need = memory.needs(scene.net, scene.terms, scene.reach.minimum, scene.like)
    size = scene.like.element_size()
    block = 8 * pictures.BLOCK**2 * 3
    copies = 36 * size * settings.tile**2 + 18 * size * area
    peak = memory.BASE_BYTES + scene.source.reader_bytes + max(block, need(area) + copies)
    print(
        f"memory: {megabytes(peak)}, of which {megabytes(need(area))} for windows of up to {side} px"
        f" (tile {settings.tile}, halo {2 * scene.reach.halo});"
        f" disk: {megabytes(files.disk_bytes)}, {files.disk_bytes // scene.image.area} bytes a pixel",
        flush=True,
    )
    if settings.device == "cpu":
        memory.check(peak, available_memory(), f"give a smaller --tile (now {settings.tile})")
    if not files.folder.exists():
        check_room(settings.out, files.disk_bytes + 6 * scene.image.area)


def descend(
    settings: Settings, scene: Scene, tiled: Tiled, files: Files, last: Entry | None
) -> Iterator[Row]:
    """Make step after step from the last finished tile on, and yield the row of each.

    If the last call ended with a whole step, the row of that step is yielded once more.
    """
    adam = Adam(settings.rate, settings.steps, settings.cooldown)
    started, cores = time.perf_counter(), tiled.cores
    step, done = (last.step, last.tile + 1) if last else (0, 0)
    if last and done == len(cores):
        yield {**last.row, "seconds": 0.0}
        step, done = step + 1, 0
    while step < settings.steps:
        pixels = tensors(scene, files, files.image(step))
        measured = tiled.measure(pixels)
        whole.check_finite(scene.terms, measured.parts, step)
        row = row_of(step + 1, started, scene.terms, measured.parts)
        for number in range(done, len(cores)):
            core = cores[number]
            slope = tiled.slope(pixels, measured, core)
            mean, square = (tensors(scene, files, k)(core)[0] for k in ("mean", "square"))
            x = adam(pixels(core)[0], mean, square, slope, step)
            new = (t.cpu().numpy() for t in (x, mean, square))
            files.finish(Entry(step, number, row, *new), core)
        step, done = step + 1, 0
        yield row


def tensors(scene: Scene, files: Files, name: str) -> Pixels:
    """A function that reads boxes of the file ``name`` as tensors."""
    return lambda box: scene.tensor(files.read(name, box))


# The end, and the command line


def finish(settings: Settings, scene: Scene, read: pictures.Boxes, step: int) -> None:
    """Write ``picture.tif`` from the image after ``step`` steps."""
    print(f"writing {settings.out / PICTURE}", flush=True)
    name = hashlib.sha256(repr((scene.facts, step)).encode()).hexdigest()
    pictures.write_pyramid(settings.out / PICTURE, read, scene.source, settings.out / "parts", name)


def optimize(settings: Settings, scale: Scale = ALONE) -> Iterator[Row]:
    """Optimise a scale from the first step or the saved state; yields the losses of each evaluation."""
    rows = optimize_tiles if settings.tile else optimize_whole
    yield from begun(settings, lambda: rows(settings, begin(settings, scale)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments

    def work() -> None:
        settings = parse(Settings, words, "Optimise an image towards a style.")
        set_threads(settings.threads)
        for here, scale in coarse_to_fine(settings):
            record(here.out / "losses.csv", optimize(here, scale), COLUMNS, every=1)

    return guarded(
        "optimize",
        work,
        stopped="stopped; the same command goes on from what is kept",
        too_large="the device has too little memory: give --tile, or a smaller one",
    )


if __name__ == "__main__":
    sys.exit(main())

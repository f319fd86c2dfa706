"""Cut the seven pictures that `urst-tiles learn` paints on out of the made-up scene.

    python pipelines/make_scene.py scene.tif --size 6144
    python pipelines/cut_scenes.py scene.tif urst_tiles/trained/scenes

They show the whole scene and parts of it, from single houses to mountains, at one to ten metres per pixel: a
style that is learned on them has seen large shapes and small ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pyvips
from command_line import Parser, existing_file, new_folder, program, reading

from urst_tiles.errors import BadInput
from urst_tiles.storage.publish import publish

#: Sides in pixels of the scene and of a picture.
SCENE, SIDE = 6144, 600
#: Name of a picture -> its middle (x, y) as a share of the scene, and pixels of the scene to one of its own.
PLACES = {
    "whole": (0.5, 0.5, 10.24),
    "valley": (0.45, 0.62, 5.0),
    "ridge": (0.3, 0.2, 3.0),
    "fields": (0.7, 0.8, 2.5),
    "coast": (0.24, 0.6, 2.0),
    "river": (0.43, 0.63, 1.0),
    "town": (0.555, 0.93, 1.0),
}
QUALITY = 75


def cut(scene: pyvips.Image, x: float, y: float, reduction: float) -> pyvips.Image:
    """The picture around that place, moved into the scene where it would leave it."""
    side = min(SCENE, round(SIDE * reduction))
    left, top = (min(max(0, round(n * SCENE) - side // 2), SCENE - side) for n in (x, y))
    return scene.crop(left, top, side, side).thumbnail_image(SIDE, height=SIDE, size="force")


@program
def main(words: Sequence[str]) -> None:
    """Run the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("scene", type=existing_file, help=f"of make_scene.py, {SCENE} pixels wide and high")
    parser.add_argument("out", type=new_folder)
    arguments = parser.parse_args(words)
    with reading(arguments.scene) as name:
        scene = pyvips.Image.new_from_file(name, fail_on="warning")
        if (scene.width, scene.height, scene.bands) != (SCENE, SCENE, 3):
            raise BadInput(
                f"{arguments.scene} is {scene.width} x {scene.height} with {scene.bands} bands; give what"
                f" `make_scene.py scene.tif --size {SCENE}` makes"
            )
        pictures = {name: cut(scene, *place).copy_memory() for name, place in PLACES.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        publish(arguments.out / f"{name}.webp", picture.write_to_buffer(".webp", Q=QUALITY))
    print(f"{arguments.out}: {len(pictures)} pictures")


if __name__ == "__main__":
    sys.exit(main())

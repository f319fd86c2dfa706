"""Measure the named styles that ship with lite, from paintings in the public domain.

    python pipelines/name_styles.py --paintings FOLDER --manifest MANIFEST.csv

``styles.csv`` beside this script gives the name and title of each file. The manifest, with the columns
``file`` and ``licence``, must call each file public domain. The result is written to
``urst_tiles/trained/styles.safetensors``. Run the script whenever the weights of lite have changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from command_line import Parser, existing_file, existing_folder, new_file, program, read_table

from urst_tiles import weights
from urst_tiles.errors import BadInput
from urst_tiles.nets import lite, named_styles
from urst_tiles.nets.base import State, digest
from urst_tiles.source.picture import read_picture
from urst_tiles.storage.publish import publish

LIST = Path(__file__).with_name("styles.csv")


def check_public_domain(names: list[str], manifest: Path) -> None:
    """Raise BadInput unless the manifest calls every file public domain."""
    licences = {Path(row["file"]).name: row["licence"] for row in read_table(manifest, "file", "licence")}
    for name in names:
        if not licences.get(name, "").startswith("Public domain"):
            raise BadInput(f"{manifest} does not call {name} public domain; leave it out of {LIST.name}")


def measure(paintings: Path, manifest: Path, weights_file: Path) -> bytes:
    """The content of the file of named styles, measured from the paintings.

    Raises
    ------
    BadInput : the manifest does not call a painting public domain.
    """
    rows = read_table(LIST, "name", "title", "file")
    check_public_domain([row["file"] for row in rows], manifest)
    state = weights.load(weights_file)
    styles: dict[str, tuple[str, State]] = {}
    for row in rows:
        image = torch.from_numpy(read_picture(paintings / row["file"], named_styles.SIZE)).permute(2, 0, 1)[
            None
        ]
        with torch.inference_mode():
            styles[row["name"]] = row["title"], lite.style_features(image, state)
    return named_styles.encode(styles, digest(state, {}))


@program
def main(words: Sequence[str]) -> None:
    """Run the command line."""
    parser = Parser(description="Measure the named styles that ship with lite.")
    parser.add_argument("--paintings", type=existing_folder, required=True, metavar="FOLDER")
    parser.add_argument("--manifest", type=existing_file, required=True, metavar="CSV")
    parser.add_argument("--weights", type=existing_file, default=weights.TRAINED / lite.FILE, metavar="FILE")
    parser.add_argument("--output", type=new_file, default=named_styles.FILE, metavar="FILE")
    arguments = parser.parse_args(words)
    publish(arguments.output, measure(arguments.paintings, arguments.manifest, arguments.weights))
    print(f"{arguments.output}: {len(read_table(LIST))} styles")


if __name__ == "__main__":
    sys.exit(main())

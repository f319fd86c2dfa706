"""``weights list``, ``fetch`` and ``add``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import HELP
from urst_tiles.cli.terminal import say


def add(commands: Any) -> None:
    """The parsers."""
    weights = commands.add_parser("weights", help="list, fetch or add the weights of a model")
    actions = weights.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which models there are, and where their weights lie")
    fetch = actions.add_parser("fetch", help="download a model's weights and check their hashes")
    adding = actions.add_parser("add", help="take a model's files, under their original names, from anywhere")
    for action in (fetch, adding):
        action.add_argument("model", metavar="MODEL")
    adding.add_argument("files", nargs="+", type=Path, metavar="FILE")
    for action, run in ((listing, run_weights_list), (fetch, run_weights_fetch), (adding, run_weights_add)):
        action.add_argument("--weights", type=Path, metavar="DIR", help=HELP["weights"])
        action.set_defaults(run=run)


def run_weights_list(arguments: argparse.Namespace) -> int:
    """``urst-tiles weights list``."""
    from urst_tiles import weights

    say(f"weights folder: {weights.folder(arguments.weights)}")
    for model in weights.TABLE:
        say(weights.describe(model, arguments.weights))
    return 0


def run_weights_fetch(arguments: argparse.Namespace) -> int:
    """``urst-tiles weights fetch``."""
    from urst_tiles import weights
    from urst_tiles.cli.terminal import progress_for

    for path in weights.fetch(arguments.model, arguments.weights, progress_for(False)):
        say(str(path))
    return 0


def run_weights_add(arguments: argparse.Namespace) -> int:
    """``urst-tiles weights add``."""
    from urst_tiles import weights

    for path in weights.add(
        arguments.model, {path.name: path for path in arguments.files}, arguments.weights
    ):
        say(str(path))
    return 0

"""The commands ``weights list``, ``weights fetch`` and ``weights add``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import HELP, add_command
from urst_tiles.cli.terminal import say, wrapped


def add(commands: Any) -> None:
    """Add the commands ``weights list``, ``weights fetch`` and ``weights add``."""
    weights = add_command(commands, "weights", "list, download or add the weights of networks")
    actions = weights.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(
        actions, "list", "list the networks, and which of their weights are on this machine"
    )
    fetch = add_command(actions, "fetch", "download the weights of a network and check their hashes")
    adding = add_command(
        actions,
        "add",
        "copy the weights of a network from files on this machine, which have their original names",
    )
    for action in (fetch, adding):
        action.add_argument(
            "model", metavar="MODEL", help="the network, as `urst-tiles weights list` names it"
        )
    adding.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a file of weights")
    for action, run in ((listing, run_weights_list), (fetch, run_weights_fetch), (adding, run_weights_add)):
        action.add_argument("--weights", type=Path, metavar="PATH", help=HELP["weights"])
        action.set_defaults(run=run)


def run_weights_list(arguments: argparse.Namespace) -> int:
    """Print the folder of weights, and for each network which of its files are there."""
    from urst_tiles import weights

    say(f"weights folder: {weights.folder(arguments.weights)}")
    for model in weights.TABLE:
        say(wrapped(weights.describe(model, arguments.weights), indent=13))
    return 0


def run_weights_fetch(arguments: argparse.Namespace) -> int:
    """Download the weights of a network, and print the path of each file."""
    from urst_tiles import weights
    from urst_tiles.cli.terminal import progress_for

    for path in weights.fetch(arguments.model, arguments.weights, progress_for(False)):
        say(str(path))
    return 0


def run_weights_add(arguments: argparse.Namespace) -> int:
    """Copy files into the folder of weights, and print the path of each copy."""
    from urst_tiles import weights

    for path in weights.add(
        arguments.model, {path.name: path for path in arguments.files}, arguments.weights
    ):
        say(str(path))
    return 0

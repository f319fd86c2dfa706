"""The queue as a table of jobs for ``urst-tiles run``, see `urst_tiles.api.table`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from urst_tiles.errors import BadInput
from urst_tiles.studio.queue import OPEN, Painting


def table_of(root: Path, paintings: Iterable[Painting]) -> str:
    """The paintings that are not finished as a table in TOML.

    Names are absolute, so that the table can lie anywhere.

    Raises
    ------
    BadInput : nothing waits, or a name is none in UTF-8, which TOML cannot hold.
    """
    left = [one for one in paintings if one.state in OPEN]
    if not left:
        raise BadInput("nothing waits in the queue")
    entries = (_entry(root, one) for one in left)
    return "# urst-tiles run jobs.toml\n" + "".join(entries)


def _entry(root: Path, one: Painting) -> str:
    options: dict[str, object] = {"model": one.look.model}
    if one.look.alpha != 100:
        options["alpha"] = one.look.alpha / 100
    if one.look.colours != "none":
        options["preserve_color"] = one.look.colours
    if "--dtype" in one.words:
        options["dtype"] = "uint8"
    output = str(root / one.output).replace("{", "{{").replace("}", "}}")
    said = ", ".join(f"{name} = {_text(value)}" for name, value in options.items())
    return (
        f"\n[[jobs]]\ninputs = {_text(str(root / one.look.image))}\nstyles = {_text(one.look.style)}\n"
        f"output = {_text(output)}\noptions = {{{said}}}\n"
    )


def _text(value: object) -> str:
    """A value in TOML, whose basic strings are those of JSON."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(
                f"{value!r} is no name in UTF-8, which a table of jobs cannot hold; rename it"
            ) from None
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""The queue as a table of jobs for ``urst-tiles run``, see `urst_tiles.api.table`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from urst_tiles import nets
from urst_tiles.errors import BadInput
from urst_tiles.studio.command import Command, parsed
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
    return "# urst-tiles run jobs.toml\n" + "".join(_entry(root, parsed(root, one.words)) for one in left)


def _entry(root: Path, one: Command) -> str:
    """An entry of the table."""
    output = _pattern(root / one.output)
    return (
        f"\n[[jobs]]\ninputs = {_toml(str(root / one.image))}\nstyles = {_toml(_styles(root, one))}\n"
        f"output = {_toml(output)}\noptions = {_toml(_options(root, one))}\n"
    )


def _pattern(path: Path) -> str:
    """A path as a pattern of a table, where braces hold names."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _styles(root: Path, one: Command) -> object:
    """The styles of a command, as a table has them."""
    if one.mask:
        pairs = [style.partition("=")[::2] for style in one.styles]
        return {"name": "drawn", "regions": {number: _style(root, style) for number, style in pairs}}
    if len(one.styles) > 1:
        weights = [float(weight) for weight in one.weights] or [1.0] * len(one.styles)
        mixed = [[_style(root, style), n] for style, n in zip(one.styles, weights, strict=True)]
        return {"name": "mixed", "mix": mixed}
    return _style(root, one.styles[0])


def _style(root: Path, style: str) -> str:
    return style if style in nets.named_styles.titles() else str(root / style)


def _options(root: Path, one: Command) -> dict[str, object]:
    """The options of a command, by their names in a table."""
    numbers = {"--alpha": float, "--stroke": int}
    found: dict[str, object] = {}
    for flag, value in one.options.items():
        found[flag[2:].replace("-", "_")] = numbers[flag](value) if flag in numbers else value
    if "--region" in one.options:
        found["region"] = [int(n) for n in one.options["--region"].split(",")]
    if one.mask:
        found["mask"] = _pattern(root / one.mask)
    return found


def _toml(value: object) -> str:
    """A value in TOML, whose basic strings are those of JSON."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(
                f"{value!r} is no name in UTF-8, which a table of jobs cannot hold; rename it"
            ) from None
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

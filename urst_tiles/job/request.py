"""A planned job as JSON: all that a worker on another machine needs besides the input file.

request.json
  version   of this layout
  input, output   absolute paths, the same on every machine
  styles    what was frozen, [path or name, weight] pairs; for the reader, since the network is there
  options   those that are not the defaults
  plan      every field, ``identity`` included
  net       sha256 of net.safetensors; a folder whose network is another is not ready
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from urst_tiles.errors import JobDiffers
from urst_tiles.geometry import Grid
from urst_tiles.options import Options, from_table
from urst_tiles.plan import Footprint, Plan
from urst_tiles.storage.stores import is_remote, path_of

VERSION = 1


@dataclass(frozen=True)
class Request:
    """What was asked for, and the plan that came of it."""

    input: Path
    output: Path
    styles: Mapping[str, Any]
    options: Options
    plan: Plan
    net: str

    def to_json(self) -> bytes:
        """For `request.json`."""
        values = {
            "version": VERSION,
            "input": str(self.input),
            "output": str(self.output),
            "styles": self.styles,
            "options": chosen(self.options),
            "plan": asdict(self.plan) | {"identity": dict(self.plan.identity)},
            "net": self.net,
        }
        return json.dumps(values, indent=1).encode()

    @classmethod
    def from_json(cls, path: Path) -> Request:
        """What ``to_json`` wrote at ``path``.

        Raises
        ------
        FileNotFoundError : it is not there.
        JobDiffers : it is something else.
        """
        try:
            values = json.loads(path.read_text())
            if values["version"] != VERSION:
                raise ValueError(f"version {values['version']}, known is {VERSION}")
            options = {name: from_table(name, v, Path()) for name, v in values["options"].items()}
            return cls(
                Path(values["input"]),
                Path(values["output"]),
                values["styles"],
                Options(**options),
                _plan(values["plan"]),
                str(values["net"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JobDiffers(f"{path} is no saved job ({error}); save it anew, with --overwrite") from None


def chosen(options: Options) -> dict[str, Any]:
    """The options that are not the defaults, as JSON has them; paths are absolute."""
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    default = Options()
    return {name: _plain(v) for name, v in values.items() if v != getattr(default, name)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path) or is_remote(value):
        return str(path_of(value))
    return list(value) if isinstance(value, tuple) else value


def _plan(values: Mapping[str, Any]) -> Plan:
    parts = {"grid": Grid(**values["grid"]), "footprint": Footprint(**values["footprint"])}
    return Plan(**{**values, **parts})

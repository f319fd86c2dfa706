"""A planned job as JSON: besides the files of the job folder and the input, a worker needs nothing else.

request.json
  version         the version of this layout
  input, output   absolute paths, the same on every machine
  styles          the styles of the frozen network, as [path or name, weight] pairs; only for people who read
                  the file, since the network is saved
  options         the options that differ from the defaults
  plan            every field of the plan, ``identity`` included
  net             SHA-256 of net.safetensors in hex; as long as the file differs, the folder is not ready
  sha256          SHA-256 of all the above in hex, so that an edited file is noticed before any block is used
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from urst_tiles.errors import JobDiffers
from urst_tiles.geometry import Box, Grid
from urst_tiles.options import Options, from_table
from urst_tiles.plan import Footprint, Plan
from urst_tiles.storage.stores import is_remote, path_of, read_file

VERSION = 3


@dataclass(frozen=True)
class Request:
    """What the user asked for, and the plan that follows from it.

    Attributes
    ----------
    input, output : absolute paths of the image file and of the result.
    styles : the styles of the frozen network, for people who read the file.
    options : the options of the job.
    plan : the plan of the job.
    net : SHA-256 of the file of the frozen network, in hex.
    """

    input: Path
    output: Path
    styles: Mapping[str, Any]
    options: Options
    plan: Plan
    net: str

    def to_json(self) -> bytes:
        """The content of request.json."""
        values = {
            "version": VERSION,
            "input": str(self.input),
            "output": str(self.output),
            "styles": self.styles,
            "options": chosen(self.options),
            "plan": asdict(self.plan) | {"identity": dict(self.plan.identity)},
            "net": self.net,
        }
        return json.dumps(values | {"sha256": _digest(values)}, indent=1).encode()

    @classmethod
    def from_json(cls, path: Path) -> Request:
        """Read a request from the file ``path``, whose content ``to_json`` made.

        Raises
        ------
        FileNotFoundError : the file does not exist.
        JobDiffers : the file holds no request of this version, or was changed since it was written.
        """
        try:
            return cls.from_values(json.loads(read_file(path)), path)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise JobDiffers(f"{path} is no saved job ({error}); save it anew, with --overwrite") from None

    @classmethod
    def from_values(cls, values: Any, path: Path) -> Request:
        """The request that the JSON values of ``to_json`` hold; ``path`` is named in the error.

        Raises
        ------
        JobDiffers : these are no values of this version, or they were changed since they were written.
        """
        try:
            if values["version"] != VERSION:
                raise ValueError(f"version {values['version']}, known is {VERSION}")
            values = dict(values)
            if values.pop("sha256") != _digest(values):
                raise ValueError("it was edited since it was saved")
            options = {name: from_table(name, v, Path()) for name, v in values["options"].items()}
            return cls(
                Path(values["input"]),
                path_of(values["output"]),
                values["styles"],
                Options(**options),
                _plan(values["plan"]),
                str(values["net"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise JobDiffers(f"{path} is no saved job ({error}); save it anew, with --overwrite") from None


def _digest(values: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of what JSON can hold, whatever the order and the spaces of the file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def chosen(options: Options) -> dict[str, Any]:
    """The options that differ from the defaults, by name, as values for JSON; paths are absolute."""
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    default = Options()
    return {name: _plain(v) for name, v in values.items() if v != getattr(default, name)}


def _plain(value: Any) -> Any:
    """A value of an option for JSON: a path becomes text, a tuple a list."""
    if isinstance(value, Path) or is_remote(value):
        return str(path_of(value))
    return list(value) if isinstance(value, tuple) else value


def _plan(values: Mapping[str, Any]) -> Plan:
    """A plan from the fields that JSON holds."""
    grid = dict(values["grid"])
    grid["part"] = grid["part"] and Box(**grid["part"])
    wanted = values["wanted"] and tuple(values["wanted"])
    parts = {"grid": Grid(**grid), "footprint": Footprint(**values["footprint"]), "wanted": wanted}
    return Plan(**{**values, **parts})

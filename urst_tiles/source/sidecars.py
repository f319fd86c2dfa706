"""Files that belong to an image and lie in its folder: masks, world files, a reference system, RPC and GDAL's
PAM files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from urst_tiles.tiff.budget import MOST_TEXT_BYTES
from urst_tiles.tiff.georeference import Pam, read_pam, rpc_text_tag
from urst_tiles.tiff.metadata import Tag

#: World files, and files of rational polynomials, of so many bytes or more are ignored.
MOST_WORLD_BYTES, MOST_RPC_BYTES = 4096, 1 << 16

#: Files of a reference system of so many bytes or more are ignored.
MOST_PRJ_BYTES = 1 << 16


@dataclass(frozen=True)
class Sidecars:
    """Files that belong to an image and lie in its folder.

    Attributes
    ----------
    mask : path of GDAL's mask ``NAME.EXT.msk``, or None.
    world_path, world : path and text of the world file, or None.
    rpc_path, rpc : path and content of a file of rational polynomials, or None.
    pam_path, pam : path of GDAL's PAM file ``NAME.EXT.aux.xml``, or None, and what it says. A file that says
        nothing which the output takes over, as one with statistics alone, counts as absent.
    prj_path, prj : path and text of a file ``NAME.prj`` beside a world file, which tells the reference system
        of its coordinates, or None.
    """

    mask: Path | None = None
    world_path: Path | None = None
    world: str | None = None
    rpc_path: Path | None = None
    rpc: Tag | None = None
    pam_path: Path | None = None
    pam: Pam = field(default=Pam())
    prj_path: Path | None = None
    prj: str | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """The paths of the sidecars that exist."""
        every = (self.mask, self.world_path, self.rpc_path, self.pam_path, self.prj_path)
        return tuple(path for path in every if path is not None)


def find_sidecars(path: Path) -> Sidecars:
    """Find the sidecars of the image file ``path``. Files that are too long are ignored."""
    mask = path.with_name(path.name + ".msk")
    world_path, world = _first(_world_names(path), MOST_WORLD_BYTES)
    rpc_path, text = _first(_rpc_names(path), MOST_RPC_BYTES)
    rpc = rpc_text_tag(text) if text is not None else None
    pam_path, text = _first([path.with_name(path.name + ".aux.xml")], MOST_TEXT_BYTES)
    pam = read_pam(text) if text is not None else Pam()
    names = [path.with_suffix(suffix) for suffix in (".prj", ".PRJ")] if world is not None else []
    prj_path, prj = _first(names, MOST_PRJ_BYTES)
    return Sidecars(
        mask if os.path.isfile(mask) else None,
        world_path,
        world,
        rpc_path if rpc is not None else None,
        rpc,
        pam_path if pam != Pam() else None,
        pam,
        prj_path,
        prj,
    )


def _first(names: Iterator[Path] | list[Path], most: int) -> tuple[Path | None, str | None]:
    """The first of these files that exists and is shorter than ``most`` bytes, and its text."""
    for name in names:
        if os.path.isfile(name) and name.stat().st_size < most:
            return name, name.read_text("utf-8", "replace")
    return None, None


def _world_names(path: Path) -> Iterator[Path]:
    """The names that a world file may have, in the order in which GDAL tries them.

    For ``a.tif`` the suffixes are ``.tfw``, ``.tifw`` and ``.wld``, each in lower and upper case.
    """
    suffix = path.suffix.lower()
    names = [f".{suffix[1]}{suffix[-1]}w"] if len(suffix) > 3 else []
    for name in (*names, suffix + "w" if suffix else ".w", ".wld"):
        yield path.with_suffix(name)
        yield path.with_suffix(name.upper())


def _rpc_names(path: Path) -> Iterator[Path]:
    """The names that GDAL knows for rational polynomials: ``a.RPB`` and ``a_RPC.TXT``, in either case."""
    for name in (f"{path.stem}.RPB", f"{path.stem}.rpb", f"{path.stem}_RPC.TXT", f"{path.stem}_rpc.txt"):
        yield path.with_name(name)

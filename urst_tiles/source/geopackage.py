"""Reading the polygons of a GeoPackage (OGC 12-128r19), which is an SQLite database with well-known binary.

References: GeoPackage 1.4, section 2.1.3 (the header of a geometry); OGC 06-103r4, section 8.2 (WKB).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.source.features import Feature

#: The bytes of the envelope in the header of a geometry, by its code.
ENVELOPE_BYTES = (0, 32, 48, 48, 64)

#: The kinds of geometry in WKB.
POLYGON, MULTIPOLYGON, COLLECTION = 3, 6, 7

#: Where GeoPackage says how a table of features is to be read.
_TABLE = """
SELECT g.table_name, g.column_name, s.organization, s.organization_coordsys_id, s.definition
FROM gpkg_geometry_columns g JOIN gpkg_spatial_ref_sys s ON g.srs_id = s.srs_id
WHERE upper(g.geometry_type_name) IN
  ('POLYGON', 'MULTIPOLYGON', 'GEOMETRY', 'GEOMETRYCOLLECTION', 'SURFACE', 'MULTISURFACE', 'CURVEPOLYGON')
ORDER BY g.rowid
"""

Rings = list[list[tuple[float, ...]]]


def read_geopackage(path: Path) -> tuple[list[Feature], str]:
    """The features of the first table of polygons, and the reference system of their coordinates; "" for an
    undefined one.

    Raises
    ------
    BadInput : the file is no GeoPackage, or holds no table of polygons.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            found = database.execute(_TABLE).fetchone()
            if found is None:
                raise BadInput(f"{path} holds no table of polygons")
            table, column, *system = found
            return list(_features(database, table, column)), _crs(*system)
    except (sqlite3.Error, struct.error, IndexError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path} is no GeoPackage that can be read ({error})") from None


def has_features(path: Path) -> bool:
    """Whether an SQLite database is a GeoPackage of features, and not of tiles of a raster alone."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            return database.execute("SELECT 1 FROM gpkg_geometry_columns").fetchone() is not None
    except sqlite3.Error:
        return False


def _features(database: sqlite3.Connection, table: str, column: str) -> Iterator[Feature]:
    """The features of a table whose geometry is in ``column``. The primary key is the id, no attribute."""
    said = database.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    others = [(name, str(kind).upper(), key) for _, name, kind, _, _, key in said if name != column]
    listed = ", ".join(_quoted(name) for name in (column, *(name for name, _, _ in others)))
    for blob, *values in database.execute(f"SELECT {listed} FROM {_quoted(table)}"):
        attributes, number = {}, None
        for (name, kind, key), value in zip(others, values, strict=True):
            if key:
                number = value
            else:
                attributes[name] = bool(value) if kind == "BOOLEAN" and value is not None else value
        yield Feature(list(_of_blob(blob)) if blob else [], attributes, number)


def _quoted(name: str) -> str:
    """The name of a table or a column for SQL."""
    return '"' + str(name).replace('"', '""') + '"'


def _crs(organization: str, code: int, definition: str) -> str:
    """The reference system as rasterio takes it."""
    if code in (0, -1):
        return ""
    return f"EPSG:{code}" if str(organization).upper() == "EPSG" else str(definition)


def _of_blob(blob: bytes) -> Iterator[Rings]:
    """The polygons of a geometry as GeoPackage stores it."""
    if blob[:2] != b"GP":
        raise ValueError("a geometry does not begin with GP")
    flags = blob[3]
    if not flags & 0x10:  # not empty
        yield from _of_wkb(blob, 8 + ENVELOPE_BYTES[flags >> 1 & 7])[0]


def _of_wkb(data: bytes, at: int) -> tuple[list[Rings], int]:
    """The polygons of the geometry at position ``at``, and the position behind it."""
    order = "<" if data[at] == 1 else ">"
    (code,) = struct.unpack_from(order + "I", data, at + 1)
    kind, axes = code % 1000, 2 + (0, 1, 1, 2)[code // 1000]
    at += 5
    if kind in (MULTIPOLYGON, COLLECTION):
        (count,) = struct.unpack_from(order + "I", data, at)
        at, found = at + 4, []
        for _ in range(count):
            more, at = _of_wkb(data, at)
            found += more
        return found, at
    if kind != POLYGON:
        raise ValueError(f"a geometry of kind {kind} in a table of polygons")
    return _polygon(data, at, order, axes)


def _polygon(data: bytes, at: int, order: str, axes: int) -> tuple[list[Rings], int]:
    """The polygon whose number of rings stands at ``at``, in a list, and the position behind it."""
    (count,) = struct.unpack_from(order + "I", data, at)
    at, rings = at + 4, []
    for _ in range(count):
        (length,) = struct.unpack_from(order + "I", data, at)
        values: Any = struct.unpack_from(f"{order}{length * axes}d", data, at + 4)
        at += 4 + 8 * length * axes
        rings.append(list(zip(*(values[axis::axes] for axis in range(2)), strict=True)))
    return [rings] if rings else [], at

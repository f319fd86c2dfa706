"""Names for the outputs of features: of each its id, or one of its attributes, safe as the name of a file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.source.features import Feature
from urst_tiles.storage.names import cut

#: The word that names outputs by the ids of features.
BY_ID = "id"

#: Names under which files keep ids as attributes. The key of a GeoPackage, often "fid", is the id itself.
_ID_NAMES = ("id", "fid")

#: What no name of a file has on Linux, macOS or Windows.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')

#: Names that are devices on Windows, whatever their suffix.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)

#: The longest name in bytes, so that a suffix and what is written beside the file still fit.
MOST_BYTES = 200


def feature_names(path: Path, features: Sequence[Feature], wanted: str) -> tuple[list[str], str]:
    """The name of each feature, and what it is taken from, as a phrase.

    Parameters
    ----------
    path : the file of the features, for messages.
    wanted : the name of an attribute; or ``id`` for the ids of the features, for an attribute ``id`` or
        ``fid`` where they have none, and else for their numbers in the order of the file, counted from 1.

    Raises
    ------
    BadInput : there is no such attribute, a feature has no value in it that makes a name, or two features
        have names that are alike.
    """
    values, said = _values(path, features, wanted)
    names = [_safe(text) for text in values]
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        alike = unicodedata.normalize("NFC", name).casefold()
        if alike in seen:
            first, second = ((n + 1, values[n]) for n in (seen[alike], number))
            raise BadInput(
                f"{path}: {said} is {first[1]!r} of feature {first[0]} and {second[1]!r} of feature"
                f" {second[0]}, and the file of each feature needs a name of its own; choose another"
                f" attribute by --each NAME{_listed(features)}"
            )
        seen[alike] = number
    return names, said


def _values(path: Path, features: Sequence[Feature], wanted: str) -> tuple[list[str], str]:
    """A text for each feature, and what it is."""
    known = {name for feature in features for name in feature.attributes}
    if wanted in known and wanted != BY_ID:
        return [_text(path, feature, n, wanted) for n, feature in enumerate(features, 1)], wanted
    if wanted.lower() not in _ID_NAMES:
        raise BadInput(f"{path} has no attribute {wanted}{_listed(features)}; choose one by --each NAME")
    if all(feature.id is not None for feature in features):
        return [_plain(feature.id) or str(feature.id) for feature in features], "the id"
    for name in _ID_NAMES:
        if all(_plain(feature.attributes.get(name)) for feature in features):
            return [_text(path, feature, n, name) for n, feature in enumerate(features, 1)], name
    return [str(number) for number in range(1, len(features) + 1)], "the number"


def _listed(features: Sequence[Feature]) -> str:
    """The attributes that there are, for a message."""
    names = list(dict.fromkeys(name for feature in features for name in feature.attributes))
    return f" (its attributes are {', '.join(map(str, names[:20]))})" if names else " (it has none)"


def _text(path: Path, feature: Feature, number: int, name: str) -> str:
    """The value of an attribute as text; BadInput if it is none, or empty."""
    value = feature.attributes.get(name)
    text = _plain(value)
    if text is None or not _safe(text):
        which = f"feature {number}" if feature.id is None else f"the feature {feature.id!r}"
        raise BadInput(
            f"{path}: {which} has {name} = {value!r}, of which no name of a file can be made; give it a text"
            " or a number, or choose another attribute by --each NAME"
        )
    return text


def _plain(value: Any) -> str | None:
    """A text, a number or a truth as text; None for anything else, and for an empty text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _safe(text: str) -> str:
    """A text as a name that is safe everywhere: without separators and signs that some systems forbid, not
    hidden, no device, and not too long; empty if nothing is left."""
    name = _UNSAFE.sub("_", text).strip().rstrip(". ")
    name = "_" + name[1:] if name.startswith(".") else name
    name = "_" + name if _DEVICES.fullmatch(name) or name.startswith("-") else name
    return cut(name, MOST_BYTES)

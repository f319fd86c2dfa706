"""XML in the text of a TIFF tag, read without any of XML's means to take time or memory.

Microscopes and scanners describe their images so: OME-XML, Leica's SCN, Akoya's QPTIFF, GDAL's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.parsers import expat

from urst_tiles.tiff.budget import MOST_TEXT_BYTES

#: The most elements that a text may have which is parsed.
MOST_ELEMENTS = 1 << 18


@dataclass(slots=True)
class Element:
    """An element of an XML text.

    Attributes
    ----------
    path : the names of the elements around it and of itself, without namespaces, from the root on.
    attributes : its attributes by name, without namespaces.
    text : the text directly inside it, without spaces around it.
    """

    path: tuple[str, ...]
    attributes: dict[str, str]
    text: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path[-1]


class _UnsafeXml(Exception):
    """The text is not safe to parse."""


def elements(text: str | None) -> list[Element]:
    """The elements of an XML text in the order in which they begin.

    The list is empty where the text is no XML, declares entities or a document type, or is too long: then it
    says nothing.
    """
    if not text or len(text) > MOST_TEXT_BYTES or not text.lstrip("\ufeff \r\n\t").startswith("<"):
        return []
    found: list[Element] = []
    open_: list[Element] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        around = open_[-1].path if open_ else ()
        plain = {_local(key): value for key, value in attributes.items()}
        found.append(Element((*around, _local(name)), plain))
        open_.append(found[-1])
        if len(found) > MOST_ELEMENTS or len(open_) > 64:
            raise _UnsafeXml

    def end(name: str) -> None:
        element = open_.pop()
        element.text, element.pieces = "".join(element.pieces).strip(), []

    def data(piece: str) -> None:
        open_[-1].pieces.append(piece)

    def refuse(*_: object) -> None:
        raise _UnsafeXml

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = data
    try:
        parser.Parse(text.lstrip("\ufeff \r\n\t"), True)
    except (expat.ExpatError, _UnsafeXml, ValueError):
        return []
    return found


def each(found: Sequence[Element], *path: str) -> list[list[Element]]:
    """The elements with this path, each with all those inside it."""
    parts: list[list[Element]] = []
    for element in found:
        if element.path == path:
            parts.append([element])
        elif element.path[: len(path)] == path:
            parts[-1].append(element)
    return parts


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition(":")[2]

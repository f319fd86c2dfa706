"""Which picture of a TIFF is read: the main image where the user does not choose, and how that is said.

The main image is, in this order: the largest of the images that the file describes as stacks of pages (OME,
ImageJ, Akoya), at the middle of its depth, as QuPath opens it; else the first page that is an image, and no
mask, overview, label, macro photograph or thumbnail; but the largest of these pages where it has at least
``FAR_LARGER`` times as many pixels as the first, which then is a preview or a label that nothing marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.tiff.choice import COLOURS, Choice, Names, Word, colour_numbers, number_of, said
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.kinds import Kind, name_of
from urst_tiles.tiff.pages import Pages, TiffFile, gather
from urst_tiles.tiff.stacks import Channel, Plane, Stack

#: A page with so many times the pixels of the first is the main image.
FAR_LARGER = 3

#: What a page is, in the words of messages.
WORDS: dict[Kind, str] = {
    "image": "an image", "reduced": "an image of reduced size", "mask": "a mask", "label": "a label",
    "macro": "a macro photograph", "thumbnail": "a thumbnail", "raw": "raw data of a camera",
    "empty": "without pixels",
}  # fmt: skip


@dataclass(frozen=True)
class Note:
    """What was chosen, as a phrase, and whether the program chose it and not the user."""

    text: str
    by_default: bool


@dataclass(frozen=True)
class Selection:
    """The picture of a TIFF that is read.

    Attributes
    ----------
    pages : its pages.
    bands : which bands of the page are read, as the user calls them; None for the default, or where the bands
        are pages of their own.
    names : names of the bands that the file keeps outside of the page's directory; empty for none.
    notes : what was chosen where there was a choice.
    """

    pages: Pages
    bands: tuple[Word, ...] | None
    names: tuple[Names, ...] = ()
    notes: tuple[Note, ...] = ()


def select(file: TiffFile, choice: Choice) -> Selection:
    """The picture of a TIFF that the user chose, or else its main image.

    Raises
    ------
    BadInput : there is no such page or channel, or it cannot be read: it is raw data of a camera, or lies in
        another file.
    DamagedFile : no page has any pixel, or a mask belongs to no page.
    """
    stacks = file.stacks
    stack = _stack_called(stacks, choice.page)
    if stack is not None:
        return _of_stack(file, stack, _middle(stack), choice, _which(stacks, stack, choice))
    page = _main_page(file) if choice.page is None else _page_called(file, choice.page)
    _check_developed(file, page)
    number = file.number_of(page)
    notes = _which_page(file, page, number, choice)
    channels = choice.channels is not None or (choice.bands is not None and choice.page is None)
    if channels and page.bands == 1:
        for stack in (*stacks, _of_peers(file, page)):
            plane = stack.plane_of(number)
            if plane is not None and len(stack.channels) > 1:
                return _of_stack(file, stack, plane, choice, notes[:0])
    return Selection(gather(file, [page]), choice.wanted, (), notes)


def chosen(notes: Sequence[Note]) -> str:
    """All that was chosen, as a phrase; empty if there was no choice."""
    return "; ".join(note.text for note in notes)


def told(notes: Sequence[Note]) -> str:
    """What the program chose, and not the user, as a phrase."""
    return "; ".join(note.text for note in notes if note.by_default)


def page_names(file: TiffFile) -> list[Names]:
    """What the pages of a file are called, in the order of their numbers."""
    known = [Names(name_of(page), (word_of(file, page),)) for page in file.chain]
    unknown = [Names()] * (file.count - len(file.chain))
    return [*known, *unknown, *(Names(name_of(page), (word_of(file, page),)) for page in file.children)]


def channel_names(stack: Stack) -> list[Names]:
    """What the channels of a stack are called."""
    return [Names(c.name, (c.colour,) if c.colour else ()) for c in stack.channels]


def word_of(file: TiffFile, page: Directory) -> str:
    """A word for what a page is: image, overview, preview, mask, label, macro, thumbnail, raw or empty."""
    kind = file.kind(page)
    level = any(file.is_overview(image, page) for image in file.image_of.values())
    return "overview" if level else "preview" if kind == "reduced" else kind


def _stack_called(stacks: Sequence[Stack], word: Word | None) -> Stack | None:
    """The largest stack, or the only one that the user calls by this name; None for no such stack."""
    if word is None:
        return max(stacks, key=lambda stack: stack.shape[0] * stack.shape[1], default=None)
    text = word.strip().casefold() if isinstance(word, str) else None
    named = [s for s in stacks if s.name and s.name.casefold() == text]
    return named[0] if len(named) == 1 else None


def _page_called(file: TiffFile, word: Word) -> Directory:
    """The page that the user calls so. Raises BadInput."""
    page = file.page(number_of(file.path, "page", word, page_names(file)))
    if file.kind(page) == "empty":
        raise BadInput(f"{file.path}: its page {word} has no pixels")
    return page


def _main_page(file: TiffFile) -> Directory:
    """The page that is the main image. Raises DamagedFile where no page has any pixel."""
    pages = file.numbered
    raw = [page for page in pages if file.kind(page) == "raw"]
    others = [page for page in pages if file.kind(page) not in ("mask", "empty")]
    images = raw or file.images
    if not images:
        if not others:
            raise DamagedFile(f"{file.path}: no page of this TIFF has any pixel; the file is damaged")
        return max(others, key=_area)
    largest = max(images, key=_area)
    return largest if raw or _area(largest) >= FAR_LARGER * _area(images[0]) else images[0]


def _area(page: Directory) -> int:
    return page.shape[0] * page.shape[1]


def _check_developed(file: TiffFile, page: Directory) -> None:
    """Raise BadInput for a page of raw data of a camera."""
    if file.kind(page) != "raw":
        return
    previews = [p for p in file.numbered if p is not page and file.kind(p) not in ("mask", "empty", "raw")]
    hint = ""
    if previews:
        best = max(previews, key=_area)
        hint = f", or read its preview of {_size(best)} pixels with --page {file.number_of(best) + 1}"
    raise BadInput(
        f"{file.path}: its page {file.number_of(page) + 1} ({_size(page)}) is raw data of a camera, one"
        " colour in each pixel (a colour filter array), which cannot be read here; develop it into a TIFF"
        f" first, with RawTherapee, darktable or dcraw -T{hint}"
    )


def _size(page: Directory) -> str:
    """Width and height as people write them."""
    return f"{page.shape[1]} x {page.shape[0]}"


def _which(stacks: Sequence[Stack], stack: Stack, choice: Choice) -> tuple[Note, ...]:
    """Which of several stacks is read."""
    if len(stacks) < 2:
        return ()
    named = f" ({stack.name})" if stack.name else ""
    number = stacks.index(stack) + 1
    size = f"{stack.shape[1]} x {stack.shape[0]}"
    return (Note(f"image {number}{named} of {len(stacks)}, {size}", choice.page is None),)


def _which_page(file: TiffFile, page: Directory, number: int, choice: Choice) -> tuple[Note, ...]:
    """Which of several pages is read; empty where it is the first and there is no other image."""
    total = file.count + len(file.children)
    first = file.chain[0]
    text = f"page {number + 1} of {total}, {_size(page)}"
    if number and choice.page is None:
        kind = "an image" if file.kind(first) == "image" else WORDS[file.kind(first)]
        return (Note(f"{text} (the first is {kind} of {_size(first)})", True),)
    others = number or len(file.images) > 1
    return (Note(text, choice.page is None),) if others else ()


def _middle(stack: Stack) -> Plane:
    """The plane that is read by default: the middle of the depth, at the first time, if the file has it."""
    depth = stack.depths // 2
    there = [plane for plane in stack.pages if plane[1:] == (depth, 0)]
    return min(there or stack.pages)


def _of_peers(file: TiffFile, page: Directory) -> Stack:
    """The pages of one sample that have the size of a page, as channels of one image."""
    alike = [
        number
        for number, other in enumerate(file.chain)
        if other.shape == page.shape
        and other.bands == 1
        and other.number(262) == page.number(262) in (0, 1)
        and file.kind(other) == "image"
    ]
    channels = tuple(Channel(name_of(file.chain[number])) for number in alike)
    return Stack(None, page.shape, channels, 1, 1, {(c, 0, 0): n for c, n in enumerate(alike)})


def _of_stack(
    file: TiffFile, stack: Stack, plane: Plane, choice: Choice, notes: tuple[Note, ...]
) -> Selection:
    """The picture of a stack at the depth and the time of a plane."""
    first, (_, z, t) = file.page(stack.pages[plane]), plane
    bands, total = choice.wanted, len(stack.channels)
    names = tuple(channel_names(stack))
    if stack.depths > 1:
        notes = (*notes, Note(f"plane {z + 1} of {stack.depths} in depth", choice.page is None))
    if stack.times > 1:
        notes = (*notes, Note(f"time {t + 1} of {stack.times}", choice.page is None))
    if total == 1 or (first.bands == total and len(stack.pages) == stack.depths * stack.times):
        return Selection(gather(file, [first]), bands, names if total > 1 else (), notes)
    picks = _channels(file, stack, plane, bands)
    notes = (*notes, Note(said("channel", names, picks), bands is None))
    return Selection(gather(file, [file.page(stack.pages[c, z, t]) for c in picks]), None, (), notes)


def _channels(file: TiffFile, stack: Stack, plane: Plane, bands: tuple[Word, ...] | None) -> list[int]:
    """The channels, counted from 0, that are read. Raises BadInput."""
    _, z, t = plane
    here = [c for c in range(len(stack.channels)) if (c, z, t) in stack.pages]
    if bands is None:
        return _default(file, stack, plane, here)
    names = channel_names(stack)
    picks = [number_of(file.path, "channel", word, names) for word in bands]
    for word, pick in zip(bands, picks, strict=True):
        if pick not in here:
            raise BadInput(
                f"{file.path}: its channel {word} has no page in this file; if it lies in another"
                " file of its set, name that"
            )
    pages = [file.page(stack.pages[c, z, t]) for c in picks]
    if len(picks) == 3 and any(page.bands != 1 for page in pages):
        raise BadInput(f"{file.path}: a channel of several samples, a colour picture, can only be read alone")
    return picks


def _default(file: TiffFile, stack: Stack, plane: Plane, here: Sequence[int]) -> list[int]:
    """The channels that are read by default.

    They are those that the file shows in red, green and blue, if it does so with one each; else the first
    three, or the first where there are fewer.
    """
    _, z, t = plane
    shown = colour_numbers([colour_of(stack.channels[c]) for c in here])
    picks = here[:3] if shown is None else [here[i] for i in shown]
    single = all(file.page(stack.pages[c, z, t]).bands == 1 for c in picks)
    return list(picks) if len(picks) == 3 and single else list(here[:1])


def colour_of(channel: Channel) -> str | None:
    """The colour that a channel has by its tag or by its name: red, green, blue or None."""
    return channel.colour or next((c for c in COLOURS if (channel.name or "").strip().casefold() == c), None)

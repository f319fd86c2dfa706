"""The pages and the tiles that the studio serves; what they show is made elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from urst_tiles.api.contact_sheet import named_styles
from urst_tiles.api.measuring import statistics_of
from urst_tiles.errors import BadInput, UrstError
from urst_tiles.studio.arguments import Brought, write
from urst_tiles.studio.asked import COLOURS, MODELS, STROKES, Asked, first_model, is_upload
from urst_tiles.studio.drawn import Drawn
from urst_tiles.studio.files import listed
from urst_tiles.studio.guard import Guard
from urst_tiles.studio.lane import Dropped, Lane
from urst_tiles.studio.layers import Layers, address_of, capabilities
from urst_tiles.studio.making import command_of, keep_files, output_of, plan_of
from urst_tiles.studio.pictures import Pictures, Shown, block_tile
from urst_tiles.studio.queue import Queue, act
from urst_tiles.studio.table import table_of
from urst_tiles.studio.uploads import MOST_BYTES

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"

#: The longest body of a request, in bytes; of one with polygons.
MOST_BODY, MOST_DRAWN = 16384, 1 << 18

#: How many images that were opened are listed.
RECENT = 8

#: How often it is looked whether somebody still waits for an answer, in seconds.
GLANCE_SECONDS = 0.1

#: The order in which calls are made: what is looked at goes first, then what may be looked at next, then the
#: squares of the gallery.
LOOKED_AT, AHEAD, GALLERY = 2, 1, 0


class Gone(Exception):
    """Whoever asked waits no more."""


class Studio:
    """What a studio holds while it is open.

    Parameters
    ----------
    root : the folder of the images.
    folder : a folder for temporary files; the caller removes it.
    image : the image that is shown first, relative to the root; empty for none.
    """

    def __init__(self, root: Path, folder: Path, image: str = "") -> None:
        self.root, self.image = root, image
        self.brought = Brought.into(root, folder)
        self.pictures = Pictures(root, folder, self.brought)
        self.layers = Layers(self.pictures)
        self.queue = Queue(root)
        self.recent: list[str] = []
        self.own_styles: list[str] = []
        self.computing = Lane(1, "studio-computes")
        self.reading = Lane(2, "studio-reads")

    def close(self) -> None:
        """End all work."""
        self.computing.close()
        self.reading.close()
        self.queue.close()

    # What is answered

    async def start(self, request: Request) -> Response:
        """What the page must know at first: the image, the styles, and what may be chosen."""
        return JSONResponse(
            {
                "image": self.image,
                "root": str(self.root),
                "styles": [{"name": name, "title": title} for name, title in named_styles().items()],
                "models": MODELS,
                "model": first_model(),
                "colours": COLOURS,
                "statistics": {model: statistics_of(model) for model in MODELS},
                "strokes": STROKES,
                "uploads": [
                    {"name": word, "title": self.brought.uploads.path(word).name} for word in self.own_styles
                ],
            }
        )

    async def files(self, request: Request) -> Response:
        """The images and folders in a folder below the root."""
        folder = request.query_params.get("folder", "")
        found = await answered(request, self.reading, lambda: listed(self.root, folder), LOOKED_AT)
        return JSONResponse(found | {"recent": [self._called(image) for image in self.recent]})

    def _called(self, image: str) -> dict[str, str]:
        """An image by its word and its name."""
        path = self.brought.uploads.find(image)
        return {"path": image, "name": path.name if is_upload(image) else image}

    async def upload(self, request: Request) -> Response:
        """Keep a picture that the page brings."""
        name, data = request.query_params.get("name", "picture"), await data_of(request, MOST_BYTES)
        word = await answered(request, self.reading, lambda: self.brought.uploads.add(name, data), LOOKED_AT)
        if request.query_params.get("use") == "style" and word not in self.own_styles:
            self.own_styles.insert(0, word)
        return JSONResponse({"word": word, "name": self.brought.uploads.path(word).name})

    async def draw(self, request: Request) -> Response:
        """Keep polygons that were drawn."""
        drawn = Drawn.of((await body_of(request, MOST_DRAWN)).get("polygons"))
        return JSONResponse({"mask": self.brought.drawings.add(drawn)})

    async def drawn(self, request: Request) -> Response:
        """The polygons of an id."""
        found = self.brought.drawings.get(request.query_params.get("mask", ""))
        return JSONResponse({"polygons": found.words})

    async def look(self, request: Request) -> Response:
        """Open an image and freeze a style; what the viewer must know of it."""
        look = Asked.of(request.query_params)

        def opened() -> dict[str, Any]:
            facts = self.pictures.facts(look)
            if look.paints:
                self.pictures.view(look)
            self.recent = [look.image, *(one for one in self.recent if one != look.image)][:RECENT]
            return facts | {"name": self._called(look.image)["name"]}

        return JSONResponse(await answered(request, self._lane(look), opened, LOOKED_AT))

    async def ahead(self, request: Request) -> Response:
        """Freeze a style that may be chosen next, if that is quick."""
        look = Asked.of(request.query_params)

        def frozen() -> None:
            if look.paints and self.pictures.is_quick(look):
                self.pictures.view(look)

        await answered(request, self._lane(look), frozen, AHEAD)
        return Response(status_code=204)

    async def tile(self, request: Request) -> Response:
        """A tile of an image or of a painting."""
        state, level, x, y, suffix = (request.path_params[k] for k in ("state", "level", "x", "y", "suffix"))
        if suffix not in ("png", "jpg"):
            raise BadInput("tiles are png or jpg")
        look = Asked.from_state(state)

        def made() -> Shown:
            return self.pictures.tile(look, level, x, y, suffix)

        tile = await answered(request, self._lane(look), made, LOOKED_AT)
        return _shown(tile, lasting=not look.side)

    async def map_tile(self, request: Request) -> Response:
        """A tile of a map."""
        look = self._look_of(request)
        z, x, y = (request.path_params[name] for name in "zxy")
        tile = await answered(request, self._lane(look), lambda: self.layers.tile(look, z, x, y), LOOKED_AT)
        return _shown(tile, lasting=not look.side)

    async def capabilities(self, request: Request) -> Response:
        """What programs for maps must know of a layer."""
        look = self._look_of(request)
        layer = await answered(request, self.reading, lambda: self.layers.layer(look), LOOKED_AT)
        return Response(capabilities(base_of(request), look, layer), media_type="application/xml")

    async def layer(self, request: Request) -> Response:
        """The addresses of a look for such programs."""
        look = self._look_of(request)
        layer = await answered(request, self.reading, lambda: self.layers.layer(look), LOOKED_AT)
        base = base_of(request)
        wmts = f"{base}wmts/{look.state}/WMTSCapabilities.xml"
        facts = {"xyz": address_of(base, look), "wmts": wmts, "bounds": layer.bounds, "zoom": layer.zoom}
        return JSONResponse(facts)

    def _look_of(self, request: Request) -> Asked:
        """The look that an address names: by its state, or by words; without any the first image."""
        if "state" in request.path_params:
            return Asked.from_state(request.path_params["state"])
        return Asked.of({"image": self.image} | dict(request.query_params))

    def _lane(self, look: Asked) -> Lane:
        return self.computing if look.paints else self.reading

    async def swatch(self, request: Request) -> Response:
        """A small square of the image in a style."""
        look, style = Asked.from_state(request.path_params["state"]), request.path_params.get("style", "")
        made = await answered(request, self.computing, lambda: self.pictures.swatch(look, style), GALLERY)
        return _shown(made)

    async def plan(self, request: Request) -> Response:
        """What making the painting takes."""
        look, name = Asked.of(request.query_params), request.query_params.get("output", "")

        def planned() -> dict[str, Any]:
            return plan_of(self.root, look, name, self.pictures.source(look.image), self.brought)

        return JSONResponse(await answered(request, self.computing, planned, LOOKED_AT))

    async def make(self, request: Request) -> Response:
        """Add a painting to the queue."""
        words = await body_of(request)
        look, name = Asked.of(words), str(words.get("output", ""))

        def added() -> dict[str, Any]:
            source, after = self.pictures.source(look.image), self.pictures.facts(look)["after"]
            output = output_of(self.root, look, name, self.brought)
            files = self.brought.files(look, output, source)
            words = command_of(self.root, look, output, source, self.brought, files)[1:]
            if not output.exists():
                write(self.root, files)
            return self.queue.add(output, words, image=look.image, after=after or "").facts

        return JSONResponse(await answered(request, self.reading, added, LOOKED_AT))

    async def change(self, request: Request) -> Response:
        """Pause or resume the queue, or move or remove one of its paintings."""
        words = await body_of(request)
        await asyncio.to_thread(act, self.queue, words)
        return JSONResponse(self.queue.state)

    async def table(self, request: Request) -> Response:
        """The queue as a table for `urst-tiles run`."""
        text = table_of(self.root, self.queue.paintings)
        headers = {"Content-Disposition": 'attachment; filename="jobs.toml"'}
        return Response(text, media_type="application/toml", headers=headers)

    async def block(self, request: Request) -> Response:
        """A tile of the finished blocks of a painting that is being made."""
        number, level, x, y = (request.path_params[name] for name in ("number", "level", "x", "y"))
        output = self.root / self.queue.get(number).output
        tile = await answered(request, self.reading, lambda: block_tile(output, level, x, y), LOOKED_AT)
        return Response(tile, media_type="image/png", headers={"Cache-Control": "no-store"})

    async def keep(self, request: Request) -> Response:
        """Write what the command of a look reads into the root, so that it can be given in a terminal."""
        words = await body_of(request)
        look, name = Asked.of(words), str(words.get("output", ""))

        def kept() -> list[str]:
            return keep_files(self.root, look, name, self.pictures.source(look.image), self.brought)

        return JSONResponse({"files": await answered(request, self.reading, kept, LOOKED_AT)})

    async def status(self, request: Request) -> Response:
        """What is being opened, and how far the paintings of the queue are."""
        stage = self.pictures.stage
        opening = dict(zip(("stage", "done", "total"), stage, strict=True)) if stage else None
        return JSONResponse({"opening": opening, "queue": self.queue.state})


def _shown(tile: Shown, *, lasting: bool = True) -> Response:
    """A tile; ``lasting`` is whether it stays what it is."""
    kept = "private, max-age=3600" if lasting else "no-cache"
    headers = {"Cache-Control": kept, "X-Approximate": "yes" if tile.approximate else "no"}
    return Response(tile.data, media_type=tile.media, headers=headers)


async def answered(request: Request, lane: Lane, call: Callable[[], T], urgency: int) -> T:
    """What ``call`` returns, made in a lane; it is not made at all once nobody waits for it.

    Raises
    ------
    Gone : nobody waits.
    UrstError : as ``call``.
    """
    future = lane.submit(call, urgency)
    waiting = asyncio.wrap_future(future)
    while True:
        try:
            done, _ = await asyncio.wait({waiting}, timeout=GLANCE_SECONDS)
        except asyncio.CancelledError:  # the studio is closed
            future.cancel()
            raise Gone from None
        if done:
            try:
                return waiting.result()
            except Dropped:
                raise Gone from None
        if await request.is_disconnected() and lane.drop(future):
            raise Gone


def base_of(request: Request) -> str:
    """The address of the studio as whoever asks calls it, which ends in ``/``."""
    return f"http://{request.headers['host']}/{request.url.path.split('/')[1]}/"


async def data_of(request: Request, most: int) -> bytes:
    """The bytes that a request brings; BadInput if there are more than ``most``."""
    pieces, held = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        held += len(piece)
        if held > most:
            raise BadInput(f"the request is too long: {most} bytes are taken")
    return b"".join(pieces)


async def body_of(request: Request, most: int = MOST_BODY) -> dict[str, Any]:
    """The JSON object that a request brings; BadInput if it brings none, or a long one."""
    data = await data_of(request, most)
    try:
        words = json.loads(data)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict):
        raise BadInput("the request is no JSON object")
    return words


async def _told(request: Request, error: Exception) -> Response:
    """An error as a sentence."""
    return JSONResponse({"error": str(error)}, 400)


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


def app_of(studio: Studio, token: str, hosts: Collection[str], framed: bool = False) -> Starlette:
    """The server of a studio, which answers who knows the token and calls it by one of ``hosts``.

    ``framed`` is whether a notebook may show its page in a frame.
    """
    routes: list[tuple[str, Callable[[Request], Awaitable[Response]], str]] = [
        ("/api/start", studio.start, "GET"),
        ("/api/files", studio.files, "GET"),
        ("/api/look", studio.look, "GET"),
        ("/api/ahead", studio.ahead, "GET"),
        ("/api/plan", studio.plan, "GET"),
        ("/api/status", studio.status, "GET"),
        ("/api/make", studio.make, "POST"),
        ("/api/queue", studio.change, "POST"),
        ("/api/layer", studio.layer, "GET"),
        ("/xyz/{z:int}/{x:int}/{y:int}.png", studio.map_tile, "GET"),
        ("/xyz/{state}/{z:int}/{x:int}/{y:int}.png", studio.map_tile, "GET"),
        ("/wmts/WMTSCapabilities.xml", studio.capabilities, "GET"),
        ("/wmts/{state}/WMTSCapabilities.xml", studio.capabilities, "GET"),
        ("/api/jobs.toml", studio.table, "GET"),
        ("/blocks/{number:int}/{level:int}/{x:int}_{y:int}.png", studio.block, "GET"),
        ("/api/keep", studio.keep, "POST"),
        ("/api/upload", studio.upload, "POST"),
        ("/api/draw", studio.draw, "POST"),
        ("/api/drawn", studio.drawn, "GET"),
        ("/tiles/{state}/{level:int}/{x:int}_{y:int}.{suffix}", studio.tile, "GET"),
        ("/swatches/{state}.jpg", studio.swatch, "GET"),
        ("/swatches/{state}/{style}.jpg", studio.swatch, "GET"),
    ]
    inner = [Route(path, call, methods=[method]) for path, call, method in routes]

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(studio.close)

    return Starlette(
        routes=[Mount(f"/{token}", routes=[*inner, Mount("/", StaticFiles(directory=PAGE, html=True))])],
        middleware=[Middleware(Guard, token=token, hosts=hosts, framed=framed)],
        exception_handlers={UrstError: _told, Gone: _nobody},
        lifespan=life,
    )

"""Opening the studio: a socket, a server, and the address with its secret."""

from __future__ import annotations

import ipaddress
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source.ome_zarr import is_zarr
from urst_tiles.storage.names import address as is_address
from urst_tiles.studio.app import Studio, app_of
from urst_tiles.studio.asked import relative
from urst_tiles.studio.guard import new_token

#: Seconds that open connections have to end when the studio is closed.
GRACE_SECONDS = 2


def serve(
    image: str | None,
    root: Path | None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    browse: bool = True,
    framed: bool = False,
    told: Callable[[str], None],
    warned: Callable[[str], None],
) -> None:
    """Serve the studio until it is interrupted.

    Parameters
    ----------
    image : the image to show first; None to choose one in the page.
    root : the folder in which images are looked for and written (default: that of the image, or the current
        one).
    host, port : where it listens; port 0 takes a free one.
    browse : whether a browser is opened.
    framed : whether a notebook may show the page in a frame.
    told, warned : called with the address, and with warnings.

    Raises
    ------
    BadInput : the image does not lie below the root, or the host and port cannot be listened on.
    MissingFile : the image or the root does not exist.
    """
    root, name = _places(image, root)
    with _listening(host, port) as listener, TemporaryDirectory(prefix="urst-tiles-studio-") as folder:
        number = listener.getsockname()[1]
        token = new_token()
        if not is_local(host):
            warned(
                f"the studio listens on {host}, unencrypted: whoever on the network gets to know the address"
                " that follows can look at your images and start jobs"
            )
        app = app_of(Studio(root, Path(folder), name), token, hosts_of(host, number), framed)
        url = f"http://{_named(host)}:{number}/{token}/"

        def opened() -> None:
            told(url)
            if browse:
                webbrowser.open(url)

        config = uvicorn.Config(
            app, log_level="critical", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False, limit_concurrency=256,
        )  # fmt: skip
        _Server(config, opened).run(sockets=[listener])


class _Server(uvicorn.Server):
    """One that says when it has begun: from then on an interrupt ends it in good order."""

    def __init__(self, config: uvicorn.Config, opened: Callable[[], None]) -> None:
        super().__init__(config)
        self._opened = opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then call ``opened``."""
        await super().startup(sockets)
        self._opened()


def _places(image: str | None, root: Path | None) -> tuple[Path, str]:
    """The root, and the image relative to it, or an empty name."""
    if image is not None and (is_address(image) or not (Path(image).is_file() or is_zarr(Path(image)))):
        raise MissingFile(f"there is no image file {image}")
    path = Path(image).resolve() if image is not None else None
    folder = (root or (path.parent if path else Path())).resolve()
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {root}")
    if path is None:
        return folder, ""
    if not path.is_relative_to(folder):
        raise BadInput(f"{image} does not lie in --root {root}; give a folder that holds it")
    return folder, relative(folder, path)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        said = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"the studio cannot listen on {host}, port {port}: {said}; choose others") from None
    listener.listen(128)
    return listener


def is_local(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(host: str, port: int) -> frozenset[str]:
    """The values of the header Host by which the studio may be called."""
    names = {_named(host)}
    if is_local(host):
        names |= {"127.0.0.1", "localhost", "[::1]"}
    elif host in ("0.0.0.0", "::"):
        names |= {socket.gethostname(), socket.getfqdn(), *_addresses()}
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == 80 else frozenset())


def _addresses() -> set[str]:
    """The addresses of this machine, as they stand in a URL."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        found = []
    return {_named(str(entry[4][0])) for entry in found} | {"127.0.0.1", "localhost"}


def _named(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host

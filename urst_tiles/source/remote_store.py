"""The read-only store through which zarr takes chunks from an address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from urst_tiles.source.remote_files import RemoteFiles
from urst_tiles.storage.stores import REQUESTS

#: What is listed.
_NONE: tuple[str, ...] = ()


class RemoteStore(Store):
    """A store of zarr in a folder at an address; nothing in it can be listed.

    Up to `REQUESTS` files are asked for at the same time, on threads, since each mostly waits.

    Parameters
    ----------
    address : the address of the folder.
    files : the files of its server.
    """

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False
    supports_listing = False

    def __init__(self, address: str, files: RemoteFiles) -> None:
        super().__init__(read_only=True)
        self._address, self._files = address, files
        self._threads = ThreadPoolExecutor(REQUESTS, "requests")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other._address == self._address

    def __hash__(self) -> int:
        return hash(self._address)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a file or of a part of it, or None where there is none; the errors are those of
        `RemoteFiles.part`."""
        asking = asyncio.get_running_loop().run_in_executor(
            self._threads, self._files.part, f"{self._address}/{key}", *_limits(byte_range)
        )
        data = await asking
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return self._files.state(f"{self._address}/{key}") != "absent"

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        for key in _NONE:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in _NONE:
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for key in _NONE:
            yield key


def _limits(part: ByteRequest | None) -> tuple[int | None, int | None]:
    """The first byte of a part of a file, counted from its end if it is below 0, and the byte behind it."""
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    return (-part.suffix, None) if isinstance(part, SuffixByteRequest) else (None, None)

"""The read-only store through which zarr takes chunks from an address."""

from __future__ import annotations

from typing import Any

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from urst_tiles.errors import BadInput
from urst_tiles.source.remote_files import unreachable


class RemoteStore(FsspecStore):
    """A store of zarr over a file system of fsspec, whose errors are those of this package.

    Parameters
    ----------
    address : the address of the folder.
    files : the file system; one that is not asynchronous is asked on threads.
    """

    def __init__(self, address: str, files: Any) -> None:
        if not files.async_impl:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            files = AsyncFileSystemWrapper(files, asynchronous=True)
        super().__init__(files, read_only=True, path=files._strip_protocol(address))
        self._address = address

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a file, or None where there is none.

        Raises
        ------
        MissingFile : the server does not answer, or does not let it be read.
        BadInput : the server gives whole files only.
        """
        name = f"{self._address}/{key}"
        try:
            found = await super().get(key, prototype, byte_range)
        except Exception as error:  # of whatever store
            raise unreachable(name, error) from None
        most = _most(byte_range)
        if found is not None and most is not None and len(found) > most:
            raise BadInput(
                f"{name}: its server gives no parts of files, which shards need; download the image, and give"
                " its path"
            )
        return found


def _most(part: ByteRequest | None) -> int | None:
    """How many bytes a part of a file has at most; None where that is not known."""
    if isinstance(part, RangeByteRequest):
        return part.end - part.start
    return part.suffix if isinstance(part, SuffixByteRequest) else None

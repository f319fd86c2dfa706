"""Tasks for worker processes, which import this module quickly: no torch, no test."""

from __future__ import annotations

import os
import socket

import psutil


def quiet(done: int, total: int) -> None:
    pass


def dying(index: int) -> int:
    """Takes its process with it at block 3."""
    if index == 3:
        os._exit(1)
    return index


def open_to(processes: list[psutil.Process]) -> set[str]:
    """The addresses of their sockets that others may send to: TCP that listens, UDP that is bound."""
    return {
        one.laddr.ip
        for process in processes
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr)
    }


def listeners(index: int) -> set[str]:
    """Of the whole tree of processes, asked by one of the workers."""
    top = psutil.Process(int(os.environ["TOP"]))
    return open_to([top, *top.children(recursive=True)])

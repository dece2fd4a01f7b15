"""Checks a cluster's head before Ray connects: does it answer, and does it require a token?

Ray itself would try for minutes where nothing listens. Where the token is wrong it would try for most of a minute, with
a warning every second, and never mention the token.
"""

from __future__ import annotations

import socket

from ltx_dist.cluster.token import refused, use_token

ANSWER_SECONDS = 5.0
"""Seconds within which a head must accept a connection."""

ASK = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The first call of every Ray client, and so the first to be refused without a token. Its request is empty."""


def check_head(address: str) -> None:
    """Raises ValueError if no head answers at HOST:PORT, or if it refuses our token."""
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT of a cluster's head (port 6379 by default){_hint(address)}")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise ValueError(f"nothing answers at {address} ({error.strerror or error})") from None
    if not _lets_in(address, None) and not _lets_in(address, use_token(address)):
        raise refused(address)


def _hint(address: str) -> str:
    """A hint for an address of another kind; empty for any other."""
    if address.startswith("ray://"):
        return "; ray:// is the port of Ray's client, which cannot monitor workers; give the head's own"
    if address.startswith(("http://", "https://")):
        return "; http:// is the job server, which `ltx-dist submit` takes"
    return ""


def _lets_in(address: str, token: str | None) -> bool:
    """Whether the head accepts calls with this token, or without one. True on any other error, which Ray will
    report."""
    import grpc  # comes with Ray

    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(ASK)(b"", timeout=ANSWER_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.UNAUTHENTICATED
    return True

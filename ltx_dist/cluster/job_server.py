"""Checks a job server before Ray's client connects: is it safe to use, and does it require a token?

Anyone who reaches a job server can run code on the cluster, and a token sent over plain http can be read on the way.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from ltx_dist.cluster.token import use_token

ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 1 << 16

TUNNEL = "`ssh -L 8265:localhost:8265 HEAD` and --address http://localhost:8265"


@dataclass(frozen=True, slots=True)
class JobServer:
    """An address that is safe to use. wants_token: whether it refuses requests without a token."""

    address: str
    wants_token: bool


def check_job_server(address: str, insecure: bool = False) -> JobServer:
    """Ask the server at `http(s)://HOST:PORT`, without a token, and let Ray's client use one if it must.

    Raises ValueError, before anything of the batch is sent, if the address has another form, does not answer, would
    carry the token over plain http to another machine (unless `insecure`), or lets anyone in from another machine.
    """
    address = address.rstrip("/")
    try:
        url = urlsplit(address)
        is_valid = url.scheme in ("http", "https") and url.hostname and url.port != 0 and not (url.path or url.username)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(f"{address!r} is not that of a job server, such as http://localhost:8265")
    is_local = _is_loopback(str(url.hostname))
    if url.scheme == "http" and not is_local and not insecure:
        raise ValueError(
            f"{address} is plain http to another machine, and anyone on the way could read the token; use "
            f"https, or {TUNNEL}, or --insecure in a private network"
        )
    wants_token = _wants_token(address)
    if not wants_token and not is_local:
        raise ValueError(
            f"{address} lets anyone run code there, without a token; start the cluster with "
            f"RAY_AUTH_MODE=token, or bind its dashboard to localhost and use {TUNNEL}"
        )
    if wants_token:
        use_token(address)
    return JobServer(address, wants_token)


def _wants_token(address: str) -> bool:
    no_server = f"the server at {address} is not a Ray job server"
    try:
        with urlopen(f"{address}/api/version", timeout=ANSWER_SECONDS) as answer:
            version = json.loads(answer.read(MAX_ANSWER_BYTES))
    except HTTPError as error:
        error.close()
        if error.code in (401, 403):
            return True
        raise ValueError(f"{no_server} (status {error.code}); check the port") from None
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise ValueError(f"nothing answers at {address} ({reason}); is the cluster up?") from None
    except (HTTPException, ValueError):
        raise ValueError(f"{no_server}; check the port (its dashboard's, 8265 if not chosen)") from None
    if not isinstance(version, dict) or "ray_version" not in version:
        raise ValueError(f"{no_server}; check the port")
    return False


def _is_loopback(host: str) -> bool:
    """Whether all addresses of the host belong to this machine."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise ValueError(f"no host {host} ({error})") from None
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)

"""The token of a Ray cluster: where Ray's clients find it, and how to make them use it."""

from __future__ import annotations

import os
from pathlib import Path


def token_source() -> str | None:
    """The first place where Ray finds a token: a variable's name or a file; None if there is none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return path
    # Ray itself raises where there is no home; nothing is found there in any case.
    default = Path(os.path.expanduser("~")) / ".ray" / "auth_token"
    return str(default) if default.is_file() else None


def use_token(address: str) -> str:
    """Make Ray send the token, and return it. Call it before Ray is imported, which is when Ray decides whether to.

    Raises ValueError when there is none, or its file cannot be read.
    """
    source = token_source()
    if source is None:
        raise ValueError(
            f"{address} requires an auth token, and none was found; put it into ~/.ray/auth_token "
            "(on its head `ray get-auth-token` prints it)"
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    if source == "RAY_AUTH_TOKEN":
        return os.environ[source]
    try:
        return Path(source).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{address} requires an auth token, and {source} cannot be read: {error}") from None


def refused(address: str) -> ValueError:
    """The error for a token that is not the cluster's."""
    return ValueError(
        f"{address} rejects the token from {token_source()}; put this cluster's token there "
        "(on its head `ray get-auth-token` prints it)"
    )

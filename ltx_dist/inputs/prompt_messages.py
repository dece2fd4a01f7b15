"""Errors and warnings about a whole prompt file, where those that would repeat are reported once."""

from __future__ import annotations

from collections.abc import Iterator

from ltx_dist.inputs.plain_text import EXPANDABLE, unexpanded
from ltx_dist.inputs.prompt_row import ONE_CHECKPOINT
from ltx_dist.inputs.rows import Doubt, Item
from ltx_dist.messages import count, show
from ltx_dist.pipeline.request import RenderRequest


def known_keys_once(messages: list[str]) -> list[str]:
    """The error messages. Only the first one about an unknown key lists the known keys and --keep-columns."""
    found, listed = list[str](), False
    for message in messages:
        brief, known, _ = message.partition("; known are ")
        first = f"{message}; --keep-columns takes others into the sidecar" if known else message
        found.append(brief if known and listed else first)
        listed = listed or bool(known)
    return found


def one_checkpoint_once(messages: list[str]) -> list[str]:
    """The messages, with a single one for all rows that name their own model."""
    first, *more = [message for message in messages if message.endswith(ONE_CHECKPOINT)] or [""]
    if not more:
        return messages
    counted = f"{first} ({count(len(more), 'more row')} with a model of its own)"
    kept = [message for message in messages if message is first or not message.endswith(ONE_CHECKPOINT)]
    return [counted if message is first else message for message in kept]


def unexpanded_parts(requests: list[tuple[Item, RenderRequest]]) -> Iterator[Doubt]:
    """One warning for all rows with parts that other programs would replace."""
    found = {
        item.line: (item, *part, field)
        for item, request in requests
        for field in ("negative_prompt", "prompt")  # if both have some, the prompt's comes last and is shown
        if (part := unexpanded(getattr(request, field)))
    }
    if found:
        item, text, kind, field = next(iter(found.values()))
        of = f", as are such parts of {count(len(found) - 1, 'more prompt')}" if len(found) > 1 else ""
        if kind not in EXPANDABLE:
            remedy = "Write one row per variant, or run a program that expands it first"
        elif field == "negative_prompt":
            remedy = "A negative_prompt is never expanded; vary renders several of them"
        else:
            remedy = "--expand all renders every variant of a prompt"
        yield Doubt(item.line, f"{show(text)} would be {kind} in other programs; here it is plain text{of}. {remedy}")

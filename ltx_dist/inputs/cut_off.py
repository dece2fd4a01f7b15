"""Finds prompts that are too long: tokens beyond `max_sequence_length` do not reach the text encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.token_counts import token_counter
from ltx_dist.inputs.prompt_row import T5_TOKENS
from ltx_dist.messages import count
from ltx_dist.pipeline.request import RenderRequest

MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class CutOff:
    """A text of a request. field: its name. tokens: how many the text has. limit: how many of them are used."""

    field: str
    tokens: int
    limit: int

    def __str__(self) -> str:
        return f"{self.field}: {self.tokens} tokens, of which {self.limit} are used"


def cut_off(requests: Iterable[RenderRequest], checkpoint: Checkpoint) -> dict[str, tuple[CutOff, ...]]:
    """The texts that are cut off, by request_id; requests without any are left out.

    The checkpoint's own tokenizer counts; it is opened only if some text could be too long. A negative prompt is
    checked only if it is used.
    """
    counter = cache(lambda: cache(token_counter(checkpoint)))
    found: dict[str, tuple[CutOff, ...]] = {}
    for request in requests:
        fields = ("prompt", "negative_prompt") if request.do_classifier_free_guidance else ("prompt",)
        limit = request.max_sequence_length
        long = [
            CutOff(field, tokens, limit)
            for field in fields
            for text in _texts(request, field)
            if _may_exceed(text, limit) and (tokens := counter()(text)) > limit
        ]
        if long:
            found[request.request_id] = tuple(long)
    return found


def cut_off_warning(found: Mapping[str, tuple[CutOff, ...]], most: int = T5_TOKENS) -> str | None:
    """One line that names some clips with their token counts, and a remedy; None if nothing is cut off.

    most: the maximum that the text encoder can get.
    """
    if not found:
        return None
    named = [f"{name} ({'; '.join(map(str, texts))})" for name, texts in list(found.items())[:MAX_NAMED]]
    if more := len(found) - MAX_NAMED:
        named += [f"and {count(more, 'more clip')}"] if more > 0 else []
    return (
        f"{count(len(found), 'clip')} with text that is cut off: {', '.join(named)}; shorten it, or set "
        f"max_sequence_length, which may be {most}"
    )


def _texts(request: RenderRequest, field: str) -> tuple[str, ...]:
    """The texts that are encoded separately: for a long clip, the prompt of each window."""
    return request.windows.distinct_prompts if field == "prompt" and request.windows else (getattr(request, field),)


def _may_exceed(text: str, limit: int) -> bool:
    """Whether a text may have more tokens than `limit`. A token has at least one character, and the tokenizer may add a
    token at either end; one character of other scripts may become several when it is normalised."""
    return not text.isascii() or len(text) + 2 > limit

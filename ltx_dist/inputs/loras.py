"""The LoRAs of a row -> files that fit the transformer, each read once per batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.lora_files import is_in_context, linear_layers, read_lora
from ltx_dist.inputs.media_rows import LoraRow
from ltx_dist.media.sources import open_media, resolve_place
from ltx_dist.pipeline.conditions import Lora


class LoraResolver:
    """Finds LoRAs. folder: which paths in rows are relative to. named: the config's LoRAs, which rows may name."""

    def __init__(self, folder: Path | str, checkpoint: Checkpoint, named: Sequence[LoraRow] = ()) -> None:
        self._folder, self._checkpoint = folder, checkpoint
        self._named = {one.name: one for one in named if one.name is not None}
        self._known: dict[str, Lora | str] = {}

    def resolve(
        self,
        asked: Sequence[LoraRow],
        folder: Path | None = None,
        beside: Sequence[Lora] = (),
        has_reference: bool = False,
    ) -> tuple[Lora, ...]:
        """The LoRAs asked for, in order. beside: others that are used together with them.

        Raises ValueError for a LoRA that is missing, for another model, or given twice, and for an IC-LoRA without a
        reference video or the reverse.
        """
        found = [self._find(one, folder or self._folder) for one in asked]
        seen = {lora.sha256 for lora in beside}
        for lora in found:
            if lora.sha256 in seen:
                raise ValueError(f"{lora.place}: given twice; add up the weights")
            seen.add(lora.sha256)
        in_context = [lora for lora in found if is_in_context(lora.place)]
        if in_context and not has_reference:
            place, generation = in_context[0].place, self._checkpoint.generation
            remedy = "those of LTX-2 are not supported" if generation else "give the row a reference video"
            raise ValueError(f"{place}: an IC-LoRA, which follows a video; {remedy}")
        if has_reference and not found:
            raise ValueError("a reference video needs an IC-LoRA in loras; add one")
        return tuple(found)

    def _find(self, asked: LoraRow, folder: Path | str) -> Lora:
        path, weight = asked.path, asked.weight
        if path is None:
            named = self._named.get(asked.name or "")
            if named is None or named.path is None:
                known = ", ".join(self._named) or "none"
                raise ValueError(f"{asked.name}: no LoRA of model.loras has this name; known are {known}")
            path, folder = named.path, Path()
        place = resolve_place(path, folder)
        if place not in self._known:
            try:
                file = open_media(place)
                read_lora(file.path, self._linears, place)
                self._known[place] = Lora(place, file.sha256)
            except ValueError as error:
                self._known[place] = str(error)
        known = self._known[place]
        if isinstance(known, str):
            raise ValueError(known)
        return Lora(place, known.sha256, float(weight))

    @cached_property
    def _linears(self) -> dict[str, tuple[int, int]]:
        return linear_layers(self._checkpoint)

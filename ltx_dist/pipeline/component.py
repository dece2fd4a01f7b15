"""Components: the networks of a checkpoint, and what can be done with their weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Component:
    """A network by diffusers' name, and the traits that decide what a worker may try with it.

    blocks: dotted name of the list of its blocks, in the order in which they are called: it can be streamed through a
        device one block after the other. Empty where it cannot.
    has_tiles: its stage can work in smaller tiles.
    is_transformer: its linear layers can be kept in float8.
    part: the part of the checkpoint that its weights are in, where that has another name.
    has_config: the checkpoint holds a config.json of it, from which its cost is estimated.
    """

    name: str
    blocks: str = ""
    has_tiles: bool = False
    is_transformer: bool = False
    part: str = ""
    has_config: bool = True

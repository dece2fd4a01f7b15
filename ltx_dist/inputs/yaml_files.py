"""Prompts as YAML: a list of texts or mappings, or a mapping whose key `prompts` holds one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.inputs.json_files import read_json_list
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.inputs.rows import Doubt, Found, Item, Problem
from ltx_dist.messages import show
from ltx_dist.strict_files import StrictLoader

_TEXTS = ("prompt", "negative_prompt")


def read_yaml(text: str) -> Iterator[Found]:
    """The items of the list. A JSON text with tabs, which YAML forbids, is read as JSON."""
    if "\t" in text and text.lstrip()[:1] in ("[", "{"):
        found = list(read_json_list(text))
        if not any(isinstance(entry, Problem) for entry in found):
            yield from found
            return
    loader = StrictLoader(text)
    node = loader.get_single_node()
    if isinstance(node, yaml.MappingNode):
        wrong = [key for key, _ in node.value if key.value != "prompts"]
        if wrong:
            remedy = "unknown key; write a list of prompts, or one under the key `prompts`"
            yield from (Problem(key.start_mark.line + 1, f"{show(key.value)}: {remedy}") for key in wrong)
            return
        node = node.value[0][1] if node.value else None
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _read_item(loader, item, text)
    elif node is not None:
        yield Problem(node.start_mark.line + 1, "write a list of prompts, each on a line with `- `")


def _read_item(loader: StrictLoader, item: yaml.Node, text: str) -> Iterator[Found]:
    line = item.start_mark.line + 1
    if _is_text_with_a_colon(item):
        written = text[item.start_mark.index : item.end_mark.index].strip().split("\n")[0]
        yield Problem(line, f"{show(written)} reads as a key and its value; put a prompt with a colon in quotes")
        return
    texts = [("prompt", item)] if isinstance(item, yaml.ScalarNode) else []
    if isinstance(item, yaml.MappingNode):
        texts = [(key.value, value) for key, value in item.value if key.value in _TEXTS]
    for name, node in texts:
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            comment = re.compile(r"[ \t]+#[^\r\n]*").match(text, node.end_mark.index)
            if comment and node.value:
                written = show(comment[0].strip())
                yield Doubt(
                    node.end_mark.line + 1,
                    f"{name}: {written} is a comment in YAML and left out; put the text in quotes if it belongs to it",
                )
    yield Item(line, loader.construct_object(item, deep=True))


def _is_text_with_a_colon(item: yaml.Node) -> bool:
    """Whether an item is a prompt like `- a cat: the movie`, which YAML reads as a mapping."""
    if not isinstance(item, yaml.MappingNode) or item.flow_style or len(item.value) != 1:
        return False
    key = item.value[0][0]
    if not isinstance(key, yaml.ScalarNode) or key.style is not None or key.value in Row.model_fields:
        return False
    return " " in key.value or "did you mean" not in did_you_mean(key.value, Row.model_fields)

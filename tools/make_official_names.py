"""Write ltx_dist/checkpoints/configs/official_names.json: the tensors that an official file of each architecture has.

    python tools/make_official_names.py

They are read off the real diffusers classes, and have the original names. `#` stands for every index in a list of equal
members, whose length differs between models.
"""

from __future__ import annotations

import json
import re

from make_checkpoint import official_transformer_name, official_vae_name, shapes_of

from ltx_dist.checkpoints.official_file import TRANSFORMER_PREFIX
from ltx_dist.checkpoints.versions import config_file, read_config

FILE = config_file("official_names")


def official_names() -> dict[str, list[str]]:
    """Patterns of the names in the transformer, without their prefix, and in the VAE of each packaged config."""
    transformer = shapes_of(read_config("transformer-2b"))
    names = {"transformer": [official_transformer_name(name).removeprefix(TRANSFORMER_PREFIX) for name in transformer]}
    for config in ("vae-0.9.0", "vae-0.9.1", "vae-0.9.5"):
        names[config] = [official_vae_name(name, config) for name in shapes_of(read_config(config))]
    return {
        part: sorted({re.sub(r"(transformer_blocks|res_blocks)\.\d+\.", r"\1.#.", name) for name in found})
        for part, found in names.items()
    }


def main() -> None:
    FILE.write_text(json.dumps(official_names(), indent=1) + "\n", "utf-8")
    print(FILE)


if __name__ == "__main__":
    main()

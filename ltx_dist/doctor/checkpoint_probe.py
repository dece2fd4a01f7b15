"""Opens a config's checkpoint without the network and prints what it is, as JSON; run by `storage.py`."""

from __future__ import annotations

import json
import sys

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.hub import NotCachedError
from ltx_dist.models.family import family_of


def main(name: str, text_encoder: str | None, version: str, upscaler: str | None) -> None:
    try:
        checkpoint = open_checkpoint(name, text_encoder, upscaler)
        preset = family_of(checkpoint).preset_for(version, checkpoint)
    except NotCachedError as error:
        print(json.dumps({"absent": str(error)}))
        return
    except ValueError as error:
        print(json.dumps({"wrong": str(error).splitlines()}))
        return
    print(json.dumps({"version": preset.version, "bytes": checkpoint.weights}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] or None, sys.argv[3], sys.argv[4] or None)

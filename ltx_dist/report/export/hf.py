"""`hf`: a folder that `datasets.load_dataset(DEST)` reads and `hf upload` sends: clips, a table, a data set card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltx_dist.report.clip_table import clip_table
from ltx_dist.report.export.destination import link_or_copy
from ltx_dist.report.finished_clips import FinishedClip
from ltx_dist.report.metadata_file import METADATA, rows_as_json_lines

CLIPS = "videos"
"""A separate folder, because names such as `test/storm` would be taken for a split."""

CARD = """---
tags:
- video
- text-to-video
- ltx-video
size_categories:
- {size}
configs:
- config_name: default
  data_files:
  - split: train
    path:
    - {table}
    - {clips}/**
---
# {title}

{number} clips rendered with {models} by ltx-dist. Each row of `{table}` has a clip's prompt, its settings,
and digests of its latents, frames and mp4.

```python
import datasets
clips = datasets.load_dataset("{title}", split="train")
```

The licence of the model applies; add the one of this data set as `license:` above.
"""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
"""Size categories as in https://huggingface.co/docs/hub/datasets-cards."""


def write(clips: Sequence[FinishedClip], place: Path) -> None:
    place.mkdir()
    rows = clip_table(clips)
    for clip, row in zip(clips, rows, strict=True):
        row["file_name"] = f"{CLIPS}/{clip.name}.mp4"
        link_or_copy(clip.mp4, place / row["file_name"])
    (place / METADATA).write_bytes(rows_as_json_lines(rows))
    models = ", ".join(sorted({str(row.get("checkpoint")) for row in rows}))
    size = next((name for below, name in SIZES if len(rows) < below), "100K<n<1M")
    title = place.name
    card = CARD.format(size=size, table=METADATA, clips=CLIPS, title=title, number=len(rows), models=models)
    (place / "README.md").write_text(card, "utf-8")

"""Encodes a small clip as a render would and decodes it again; run by `packages.py` in a process of its own."""

from __future__ import annotations

import json

import av
import numpy as np

from ltx_dist.media.mp4 import check_video, encode_video
from ltx_dist.pipeline.storage import Mp4Settings

SIDE, NUM_FRAMES, FRAME_RATE = 64, 9, 24.0


def main() -> None:
    frames = (np.full((SIDE, SIDE, 3), 20 * number, np.uint8) for number in range(NUM_FRAMES))
    video = encode_video(
        frames,
        height=SIDE,
        width=SIDE,
        num_frames=NUM_FRAMES,
        frame_rate=FRAME_RATE,
        output=Mp4Settings(),
        metadata={},
    )
    check_video(video.mp4, NUM_FRAMES, SIDE, SIDE, FRAME_RATE)
    print(json.dumps({"av": av.__version__, "bytes": len(video.mp4)}))


if __name__ == "__main__":
    main()

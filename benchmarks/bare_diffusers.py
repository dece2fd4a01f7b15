"""Renders prompts as a user of diffusers would: one pipeline in one process, mp4s included. This is the baseline.

    python benchmarks/bare_diffusers.py PROMPTS OUT [--threads N] [--part I/N]

Prints one JSON line: when the process started, when its first clip started and when its last clip ended (in seconds
since 1970), and the seconds that each clip took. The mp4s are written by our encoder, so only the rendering differs.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

PROCESS_STARTED = time.time()

import diffusers  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from ltx_dist.inputs.config import RenderConfig  # noqa: E402
from ltx_dist.media.mp4 import encode_video  # noqa: E402
from ltx_dist.pipeline.request import RenderRequest  # noqa: E402
from ltx_dist.pipeline.storage import Mp4Settings  # noqa: E402
from ltx_dist.run.batch import open_batch  # noqa: E402


def load_pipeline(folder: str) -> diffusers.DiffusionPipeline:
    diffusers.utils.logging.disable_progress_bar()
    pipeline = diffusers.LTXPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def render_clip(pipeline: Any, request: RenderRequest, output: Mp4Settings) -> bytes:
    """The mp4 of one call of the pipeline."""
    images = pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        frame_rate=request.frame_rate,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        decode_timestep=request.decode_timestep,
        decode_noise_scale=request.decode_noise_scale,
        max_sequence_length=request.max_sequence_length,
    ).frames[0]
    return encode_video(
        (np.asarray(image) for image in images),
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        frame_rate=request.frame_rate,
        output=output,
        metadata={"title": request.prompt},
    ).mp4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prompts")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, help="threads of torch; by default, torch chooses")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th clip, starting with clip I (from 0)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    index, count = map(int, arguments.part.split("/"))
    batch = open_batch(arguments.prompts, RenderConfig())
    pipeline = load_pipeline(str(batch.checkpoint.path))
    started = time.time()
    seconds = []
    for request in batch.requests[index::count]:
        clip_started = time.perf_counter()
        mp4 = render_clip(pipeline, request, batch.mp4_settings)
        with open(f"{arguments.out}/{request.request_id}.mp4", "wb") as file:
            file.write(mp4)
        seconds.append(time.perf_counter() - clip_started)
    print(json.dumps({"process": PROCESS_STARTED, "started": started, "ended": time.time(), "clips": seconds}))


if __name__ == "__main__":
    main()

"""Train the demonstration model that ships in ltx_dist/demo/model.

    python tools/train_demo_model.py --output ltx_dist/demo/model
    python tools/train_demo_model.py --output model --start-from ltx_dist/demo/model --stages transformer \\
        --transformer-steps 500

There are four stages, each with a checkpoint in the work folder from which an interrupted run
resumes: the text encoder; the VAE; the transformer, with the VAE's latents and the text encoder's
embeddings; and the latent upsampler, with clips that the VAE encodes at both sizes. They see only
clips and captions that are drawn during training, never the 48 held-out attribute combinations that
benchmarks/demo_prompts.py measures.

The committed weights were made with these defaults on one thread of a server CPU with bfloat16
instructions, in 1 h 38 min: text encoder 6 min, VAE 28 min (30.2 dB on held-out clips),
transformer 64 min. Two settings were changed on the way, and training continued from the
checkpoints: the first 1000 steps of the VAE had a learning rate that fell over 3300 steps; and the
VAE and the first 1200 steps of the transformer saw radii of 19 to 27 pixels and travels of 34 to 62
pixels. Until then there were no first frames. The second command taught the transformer those, in
275 further steps of a schedule for 500, with under 7 min of CPU time in float32. The upsampler came
last: 90 s for its pairs of clips, and 98 s for 1500 steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from demo_training.common import pick_device
from demo_training.models import build_scheduler, count_parameters, export_pipeline, load_parts, load_upsampler
from demo_training.text_stage import train_text_encoder
from demo_training.transformer_stage import SHIFT, train_transformer
from demo_training.upsampler_stage import train_upsampler
from demo_training.vae_stage import held_out_psnr, train_vae

STAGES = ("text", "vae", "transformer", "upsampler")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--work", type=Path, default=Path("demo-training"), help="the folder for checkpoints")
    parser.add_argument(
        "--stages",
        nargs="*",
        choices=STAGES,
        default=STAGES,
        help="train only these; the others are taken from the work folder, as far as they are trained",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        help="a model folder whose transformer and upsampler are trained further; its other parts stay as they are",
    )
    parser.add_argument("--text-steps", type=int, default=600)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--transformer-steps", type=int, default=4500)
    parser.add_argument("--upsampler-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args()


def main() -> None:
    """Train the chosen stages, and write the model folder."""
    args = _parse()
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    print(f"training on {device}, {args.threads} CPU thread(s)")
    steps = {stage: getattr(args, f"{stage}_steps") for stage in args.stages}
    trained, upsampler = None, None
    if args.start_from:
        text_encoder, vae, trained = load_parts(args.start_from, device)
        upsampler = load_upsampler(args.start_from, device)
    else:
        text_encoder = train_text_encoder(args.work, steps.get("text", 0), device, args.seed)
        vae = train_vae(args.work, steps.get("vae", 0), device, args.seed)
        print(f"VAE: {held_out_psnr(vae, args.seed, 48):.2f} dB on held-out clips", flush=True)
    transformer = train_transformer(args.work, steps.get("transformer", 0), vae, text_encoder, args.seed, trained)
    upsampler = train_upsampler(args.work, steps.get("upsampler", 0), vae, args.seed, upsampler)
    parts = (text_encoder, vae, transformer, upsampler)
    print("parameters:", *(f"{type(part).__name__} {count_parameters(part)}" for part in parts))
    export_pipeline(
        args.output, vae.cpu(), text_encoder.cpu(), transformer.cpu(), upsampler.cpu(), build_scheduler(SHIFT)
    )


if __name__ == "__main__":
    main()

"""The stages of LTX-2.0, 2.3 and 2.5, their components, and which class runs each operation. A literal table.

Sound is decoded on the worker that decodes the video: it takes under 1 % of the video's time, and the frames never
leave that worker.
"""

from __future__ import annotations

from ltx_dist.pipeline.recipe import Component, Recipe, StageLabel, StageSpec

RECIPE = Recipe(
    "LTX-2",
    (
        StageSpec(
            name="encode_text",
            operation="encode_text",
            label=StageLabel("E", "encode", "the text encoder", "light-dark(#d98e04, #e9a734)"),
            components=("text_encoder", "connectors"),
            files=("tokenizer",),
            settings=("prompt", "used_negative_prompt", "max_sequence_length", "loras_of_passes"),
            keeps="cache",
            share=0.05,
        ),
        StageSpec(
            name="encode_image",
            operation="encode_image",
            label=StageLabel("I", "encode images", "the VAE's encoder", "light-dark(#a3730e, #c9a24a)"),
            components=("vae_encoder",),
            settings=("conditions", "first_size", "num_frames", "second_pass"),
            keeps="cache",
            only_with="conditions",
            share=0.02,
        ),
        StageSpec(
            name="denoise",
            operation="denoise",
            label=StageLabel("D", "denoise", "the transformer", "light-dark(#0b6fb0, #5aaee6)"),
            components=("transformer",),
            inputs=("encode_text", "encode_image"),
            files=("scheduler", "vae", "audio_vae"),
            settings=(
                "first_size", "num_frames", "frame_rate", "num_inference_steps", "guidance_scale", "guidance_rescale",
                "sound", "seed", "conditions", "loras",
            ),
            keeps="spool",
            steps="num_inference_steps",
            share=0.5,
        ),
        StageSpec(
            name="refine",
            operation="refine",
            label=StageLabel("R", "refine", "the transformer", "light-dark(#3f5bb8, #8fa3ee)"),
            components=("transformer", "latent_upsampler"),
            inputs=("encode_text", "encode_image", "denoise"),
            settings=("second_pass",),
            keeps="spool",
            steps="second_pass.num_steps",
            only_with="second_pass",
            replaces="denoise",
            share=0.3,
        ),
        StageSpec(
            name="decode",
            operation="decode",
            label=StageLabel("V", "decode", "the VAEs", "light-dark(#0f9472, #3dbd96)"),
            components=("vae", "audio_vae", "vocoder"),
            inputs=("denoise", "refine"),
            run_settings=("tiling",),
            share=0.13,
        ),
        StageSpec(
            name="encode_video",
            operation="encode_video",
            label=StageLabel("M", "mp4", "x264", "light-dark(#8a63b8, #b594e0)"),
            inputs=("decode",),
            settings=("height", "width"),
            run_settings=("mp4",),
            runs_on="host",
        ),
    ),
)  # fmt: skip

COMPONENTS = (
    Component("text_encoder", blocks="language_model.layers"),
    Component("connectors"),
    Component("vae_encoder", part="vae"),
    Component("transformer", blocks="transformer_blocks", is_transformer=True),
    Component("latent_upsampler"),
    Component("vae", has_tiles=True),
    Component("audio_vae"),
    Component("vocoder"),
)

OPERATIONS = {
    "encode_text": "ltx_dist.models.ltx2.encode_text:EncodeText",
    "encode_image": "ltx_dist.models.ltx2.encode_image:EncodeImage",
    "denoise": "ltx_dist.models.ltx2.denoise:Denoise",
    "refine": "ltx_dist.models.ltx2.refine:Refine",
    "decode": "ltx_dist.models.ltx2.decode:Decode",
    "encode_video": "ltx_dist.models.encode_video:EncodeVideo",
}

"""The stages of LTX-Video 0.9.x, its components, and which class runs each operation. A literal table."""

from __future__ import annotations

from ltx_dist.pipeline.recipe import Component, Recipe, StageLabel, StageSpec

RECIPE = Recipe(
    "LTX-Video",
    (
        StageSpec(
            name="encode_text",
            operation="encode_text",
            label=StageLabel("E", "encode", "the text encoder", "light-dark(#d98e04, #e9a734)"),
            components=("text_encoder",),
            files=("tokenizer",),
            settings=("prompt", "used_negative_prompt", "windows", "max_sequence_length"),
            keeps="cache",
            shares_pass=True,
            share=0.02,
        ),
        StageSpec(
            name="encode_image",
            operation="encode_image",
            label=StageLabel("I", "images", "the VAE's encoder", "light-dark(#c2185b, #f06292)"),
            components=("vae_encoder",),
            settings=("conditions", "video", "reference", "first_size", "second_pass"),
            keeps="cache",
            share=0.01,
            only_with="has_media",
        ),
        StageSpec(
            name="denoise",
            operation="denoise",
            label=StageLabel("D", "denoise", "the transformer", "light-dark(#0b6fb0, #5aaee6)"),
            components=("transformer",),
            inputs=("encode_text", "encode_image"),
            files=("scheduler",),
            settings=(
                "height", "width", "second_pass", "num_frames", "frame_rate", "num_inference_steps", "timesteps",
                "guidance_scale", "guidance_rescale", "seed", "conditions", "image_cond_noise_scale", "video",
                "denoise_strength", "reference", "windows", "loras",
            ),
            keeps="spool",
            shares_pass=True,
            alone_with="has_own_pass",
            steps="num_steps",
            share=0.8,
        ),
        StageSpec(
            name="refine",
            operation="refine",
            label=StageLabel("R", "refine", "the transformer", "light-dark(#3f51b5, #8c9eff)"),
            components=("transformer", "latent_upsampler"),
            inputs=("encode_text", "encode_image", "denoise"),
            files=("vae",),
            settings=("second_pass",),
            keeps="spool",
            steps="second_pass.num_steps",
            share=0.3,
            only_with="second_pass",
            replaces="denoise",
        ),
        StageSpec(
            name="decode",
            operation="decode",
            label=StageLabel("V", "decode", "the VAE", "light-dark(#0f9472, #3dbd96)"),
            components=("vae",),
            inputs=("denoise", "refine"),
            settings=("decode_timestep", "decode_noise_scale", "height", "width"),
            run_settings=("tiling",),
            share=0.15,
        ),
        StageSpec(
            name="encode_video",
            operation="encode_video",
            label=StageLabel("M", "mp4", "x264", "light-dark(#8a63b8, #b594e0)"),
            inputs=("decode",),
            run_settings=("mp4",),
            runs_on="host",
        ),
    ),
)  # fmt: skip

COMPONENTS = (
    Component("text_encoder", blocks="encoder.block"),
    Component("transformer", blocks="transformer_blocks", is_transformer=True),
    Component("vae_encoder", part="vae"),
    Component("latent_upsampler"),
    Component("vae", has_tiles=True),
)

OPERATIONS = {
    "encode_text": "ltx_dist.models.ltx_video.encode_text:EncodeText",
    "denoise": "ltx_dist.models.ltx_video.denoise:Denoise",
    "encode_image": "ltx_dist.models.ltx_video.encode_image:EncodeImage",
    "refine": "ltx_dist.models.ltx_video.refine:Refine",
    "decode": "ltx_dist.models.ltx_video.decode:Decode",
    "encode_video": "ltx_dist.models.encode_video:EncodeVideo",
}

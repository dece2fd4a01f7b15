"""Every version of LTX-Video, as a folder and as an official file, renders offline what diffusers renders."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from oracle import make_request, render_monolithic, render_split
from safetensors import safe_open

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile, open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.checkpoints.official_file import TRANSFORMER_PREFIX, missing_tensors
from ltx_dist.checkpoints.official_shapes import transformer_sizes, vae_sizes
from ltx_dist.checkpoints.versions import ARCHITECTURES, read_config
from ltx_dist.checkpoints.weight_files import WEIGHTS_NAME, read_header
from ltx_dist.models.ltx_video.presets import PRESETS, detect_version, preset_for
from ltx_dist.pipeline.request import RenderRequest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import make_checkpoint as tool  # noqa: E402

FORMATS = ["folder", "single_file"]
REQUEST = make_request("clip", num_inference_steps=2, width=64)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Checkpoints by version and form, each written once."""

    @cache
    def make(version: str, form: str) -> Checkpoint:
        out = tmp_path_factory.mktemp("made") / f"{version}-{form}"
        path = tool.make_checkpoint(version, out, "tiny", form)
        return open_checkpoint(str(path), str(out) if form == "single_file" else None)

    return make


@pytest.fixture(scope="module")
def oracle(made):
    @cache
    def render(version: str, request: RenderRequest):
        return render_monolithic(made(version, "folder"), request)

    return render


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("version", ARCHITECTURES)
def test_every_version_renders_what_diffusers_renders(made, oracle, version: str, form: str) -> None:
    expected = oracle(version, REQUEST)
    latents, frames = render_split(made(version, form), REQUEST, torch.float32)
    assert torch.equal(latents.latents, expected.latents)
    assert np.array_equal(frames, expected.frames)
    assert frames.std() > 1, "the frames are not flat, so equality means something"


@pytest.mark.parametrize("form", FORMATS)
def test_a_schedule_of_the_request_is_the_one_that_diffusers_runs(made, oracle, form: str) -> None:
    preset = preset_for("auto", made("0.9.8-2b-distilled", form))
    assert "timesteps" in preset.settings or form == "folder", "a file tells its version by its name"
    timesteps = PRESETS["0.9.8-2b-distilled"].settings["timesteps"]
    request = replace(REQUEST, timesteps=timesteps, num_inference_steps=8, guidance_scale=1.0)
    expected = oracle("0.9.8-2b-distilled", request)
    latents, frames = render_split(made("0.9.8-2b-distilled", form), request, torch.float32)
    assert torch.equal(latents.latents, expected.latents)
    assert np.array_equal(frames, expected.frames)


@pytest.mark.parametrize("version", ARCHITECTURES)
def test_an_official_file_is_recognised(made, version: str) -> None:
    assert detect_version(made(version, "single_file")) == version


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_an_official_file_is_loaded_straight_in_its_precision(made, version: str) -> None:
    from ltx_dist.models.ltx_video.load import load_transformer, load_vae_decoder

    for load in (load_transformer, load_vae_decoder):
        module = load(made(version, "single_file"), torch.bfloat16)
        assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
        assert not any(tensor.is_meta for tensor in module.state_dict().values())
        assert not module.training


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_a_decode_worker_holds_no_encoder(made, version: str, form: str) -> None:
    from ltx_dist.models.ltx_video.load import load_vae_decoder

    checkpoint = made(version, form)
    vae = load_vae_decoder(checkpoint, torch.float32)
    held = sum(tensor.numel() for tensor in vae.state_dict().values())
    assert held == checkpoint.num_loaded()["vae"] < checkpoint.num_parameters["vae"]
    assert not [name for name, _ in vae.named_parameters() if name.startswith("encoder")]
    assert vae.to("cpu").dtype == torch.float32


@pytest.mark.parametrize("form", [*FORMATS, "shards"])
@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_no_tensor_of_the_vae_encoder_is_asked_for(
    made, version: str, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ltx_dist.models.ltx_video import load as loading
    from ltx_dist.weights import loading as weights_loading

    checkpoint = made(version, "folder" if form == "shards" else form)
    expected = loading.load_vae_decoder(checkpoint, torch.float32).state_dict()
    if form == "shards":
        whole = diffusers.AutoencoderKLLTXVideo.from_pretrained(checkpoint.folder("vae"))
        whole.save_pretrained(tmp_path / "vae", max_shard_size="100KB")
        assert len(list((tmp_path / "vae").glob("*.safetensors"))) > 2
        checkpoint = replace(checkpoint, path=tmp_path)
    asked: list[str] = []

    class Recorded:
        """safe_open, and the names of the tensors that it was asked for."""

        def __init__(self, *arguments: object, **named: object) -> None:
            self._file = safe_open(*arguments, **named)

        def __enter__(self) -> Recorded:
            self._file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self._file.__exit__(*error)

        def keys(self) -> list[str]:
            return self._file.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            asked.append(name)
            return self._file.get_tensor(name)

    monkeypatch.setattr(weights_loading, "safe_open", Recorded)
    loaded = loading.load_vae_decoder(checkpoint, torch.float32).state_dict()
    assert loaded.keys() == expected.keys() and all(torch.equal(loaded[name], expected[name]) for name in loaded)
    assert len(asked) == len(loaded) and not [name for name in asked if "encoder" in name.replace("decoder", "")]


def test_weights_of_another_vae_are_refused(made, tmp_path: Path) -> None:
    from ltx_dist.models.ltx_video.load import load_vae_decoder

    checkpoint = made("0.9.1", "folder")
    shutil.copytree(checkpoint.folder("vae"), tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    for change, kind in (({"latent_channels": 8}, "mismatched"), ({"timestep_conditioning": False}, "unexpected")):
        (tmp_path / "vae" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=f"{kind} tensors, such as .*: the config belongs to other weights"):
            load_vae_decoder(replace(checkpoint, path=tmp_path), torch.float32)


@pytest.mark.parametrize("version", ARCHITECTURES)
def test_both_forms_are_measured_alike(made, version: str) -> None:
    folder, file = made(version, "folder"), made(version, "single_file")
    assert file.num_parameters == folder.num_parameters
    assert file.weights == folder.weights
    for field in (
        "pipeline_class", "num_encoder_parameters", "latent_channels", "timestep_conditioning", "decoder_inject_noise",
        "num_layers", "spatial_compression_ratio", "temporal_compression_ratio",
    ):  # fmt: skip
        assert getattr(file, field) == getattr(folder, field), field


@pytest.mark.parametrize("version", ARCHITECTURES)
def test_sizes_read_from_shapes_are_the_packaged_ones_at_full_scale(version: str) -> None:
    architecture = ARCHITECTURES[version]
    transformer, vae = read_config(architecture.transformer), read_config(architecture.vae)
    names = {tool.official_vae_name(name, architecture.vae): shape for name, shape in tool.shapes_of(vae).items()}
    sizes = vae_sizes(names, architecture.vae)
    assert {key: vae[key] for key in sizes} == sizes
    prefix = "model.diffusion_model."
    names = {
        tool.official_transformer_name(name).removeprefix(prefix): shape
        for name, shape in tool.shapes_of(transformer).items()
    }
    sizes = transformer_sizes(names)
    assert {key: transformer[key] for key in sizes} == sizes


def test_a_file_is_identified_by_its_content(made) -> None:
    folder, file = made("0.9.1", "folder"), made("0.9.1", "single_file")
    digest, other = checkpoint_digest(file), checkpoint_digest(made("0.9.0", "single_file"))
    assert set(digest) == set(checkpoint_digest(folder))
    assert digest["text_encoder"] == checkpoint_digest(folder)["text_encoder"] == other["text_encoder"]
    assert digest["transformer"] != digest["vae"] != other["vae"]
    assert digest["transformer"] != other["transformer"]


def test_the_names_of_official_files_are_those_of_diffusers_classes() -> None:
    import make_official_names

    assert make_official_names.official_names() == read_config("official_names"), "run tools/make_official_names.py"


STRIDE = 20


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5", "0.9.7-13b-dev"])
def test_each_tensor_that_a_file_lacks_is_missed_by_its_header(made, version: str) -> None:
    """A whole file lacks none: the required tensors are those that the real classes store."""
    tensors = read_header(made(version, "single_file").path).tensors
    transformer = {name.removeprefix(TRANSFORMER_PREFIX) for name in tensors if name.startswith(TRANSFORMER_PREFIX)}
    vae = {name for name in tensors if name.startswith("vae.")}
    for part, names in (("transformer", transformer), (ARCHITECTURES[version].vae, vae)):
        assert missing_tensors(part, names) == []
        # A few at a time, because a 13B file has many tensors; never a whole member of a list, because the list may be
        # shorter.
        for first in range(STRIDE):
            lacking = sorted(names)[first::STRIDE]
            assert sorted(missing_tensors(part, names - {*lacking})) == lacking


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "lacking", ["transformer_blocks.1.attn2.to_v.bias", "proj_out.weight", "vae.decoder.conv_out.conv.bias"]
)
def test_a_file_that_lacks_a_tensor_is_refused_by_plan(made, tmp_path: Path, lacking: str) -> None:
    from safetensors.torch import load_file, save_file

    original = made("0.9.5", "single_file")
    tensors = load_file(original.path)
    (name,) = [name for name in tensors if name.removeprefix(TRANSFORMER_PREFIX) == lacking]
    del tensors[name]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(tmp_path / "cut.safetensors"), str(original.path.parent))
    assert str(caught.value) == (
        f"model.checkpoint: {tmp_path / 'cut.safetensors'}: not a complete LTX-Video file: 1 missing tensors, such as "
        f"{lacking}; download it again"
    )


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
@pytest.mark.parametrize("key", ["scaled_fp8", "block.0.q.scale_weight", "block.0.q.weight_scale"])
def test_scaled_fp8_in_a_folder_is_refused_by_plan(made, tmp_path: Path, component: str, key: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(made("0.9.5", "folder").path, tmp_path / "model"))
    weights = folder / component / WEIGHTS_NAME[component]
    save_file(load_file(weights) | {key: torch.ones(1)}, weights)
    with pytest.raises(ValueError, match=f"  {component}: quantised for another program \\({key} is a scale"):
        open_checkpoint(str(folder))


def test_a_file_without_a_text_encoder_names_the_field(made) -> None:
    path = str(made("0.9.5", "single_file").path)
    with pytest.raises(ValueError, match=r"model\.text_encoder: not set, and ltx-video-2b-v0\.9\.5\.safetensors holds"):
        open_checkpoint(path)
    with pytest.raises(ValueError, match=r"model\.text_encoder: .*: no such folder"):
        open_checkpoint(path, f"{path}-nowhere")


@pytest.mark.fault(16)
@pytest.mark.parametrize("form", FORMATS)
def test_a_text_encoder_of_another_width_is_refused(made, tmp_path: Path, form: str) -> None:
    config = tool.sized_config("text_encoder", "tiny") | {"d_model": 64}
    tool.write_component(tmp_path / "text_encoder", "text_encoder", config)
    (tmp_path / "tokenizer").symlink_to(made("0.9.5", "folder").folder("tokenizer"))
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(made("0.9.5", form).path), str(tmp_path))
    assert str(caught.value) == (
        f"model.text_encoder: {tmp_path}: d_model is 64, but the transformer was trained on embeddings of 32; "
        "give the text encoder it was trained with (T5 v1.1 XXL has 4096)"
    )


@pytest.mark.fault(16)
def test_components_of_other_widths_in_a_folder_are_refused(made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made("0.9.5", "folder").path, tmp_path / "model"))
    tool.write_component(
        folder / "text_encoder", "text_encoder", tool.sized_config("text_encoder", "tiny") | {"d_model": 16, "d_kv": 4}
    )
    vae = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(vae | {"latent_channels": 64}))
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(folder))
    assert (
        "  text_encoder/config.json: d_model is 16, but the transformer was trained on embeddings of 32; give"
        in str(caught.value)
    )
    assert "  vae/config.json: latent_channels is 64, but the transformer's in_channels is 128; give" in str(
        caught.value
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize(
    "part",
    [
        "text_encoder/config.json", "transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json", "model_index.json",
    ],
)  # fmt: skip
def test_a_config_that_diffusers_cannot_read_is_refused(made, tmp_path: Path, part: str, encoding: str) -> None:
    """json.loads() takes all Unicode encodings; diffusers and transformers open these files as UTF-8."""
    folder = Path(shutil.copytree(made("0.9.5", "folder").path, tmp_path / "model"))
    document = json.loads((folder / part).read_text()) | {"note": "caf\xe9"}
    (folder / part).write_bytes(json.dumps(document, ensure_ascii=False).encode(encoding))
    with pytest.raises(ValueError, match=rf"  {part}: (begins with a byte order mark; save it as UTF-8|not JSON)"):
        open_checkpoint(str(folder))


def test_a_folder_takes_another_text_encoder_or_one_that_lies_alone(made, tmp_path: Path) -> None:
    folder = made("0.9.5", "folder")
    other = made("0.9.1", "single_file").folder("text_encoder").parent
    checkpoint = open_checkpoint(str(folder.path), str(other))
    assert checkpoint.folder("text_encoder") == other / "text_encoder"
    assert checkpoint.source("transformer") == folder.path / "transformer"
    for source in [*(other / "text_encoder").iterdir(), *(other / "tokenizer").iterdir()]:
        (tmp_path / source.name).symlink_to(source)
    alone = open_checkpoint(str(folder.path), str(tmp_path))
    assert alone.folder("tokenizer") == tmp_path
    expected, _ = render_split(folder, REQUEST, torch.float32)
    latents, _ = render_split(alone, REQUEST, torch.float32)
    assert torch.equal(latents.latents, expected.latents)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a.weight": (2, 2)}, "not an official LTX-Video file: no patchify_proj.weight"),
        ({"diffusion_model.transformer_blocks.0.attn1.to_k.lora_A.weight": (2, 2)}, "a LoRA, which holds no model"),
        (
            {"encoder.block.0.layer.0.SelfAttention.k.weight": (2, 2)},
            "T5, the text encoder; it goes into model.text_enc",
        ),
        ({"transformer_blocks.0.attn1.to_k.weight": (2, 2)}, "a transformer under diffusers' names"),
        (
            {f"model.diffusion_model.{name}.weight": (2, 2) for name in ("patchify_proj", "audio_patchify_proj")},
            r"a single file of LTX-2\.0, .* the model in diffusers layout, Lightricks/LTX-2 on the hub, or convert",
        ),
        ({"model.language_model.layers.0.mlp.up_proj.weight": (2, 2)}, "the text encoder alone, perhaps of LTX-2"),
        ({"model.diffusion_model.patchify_proj.weight": (64, 128)}, "holds no VAE"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors: dict[str, tuple[int, ...]], says: str) -> None:
    path = tmp_path / "other.safetensors"
    tool.write_safetensors(path, {name: (name, shape) for name, shape in tensors.items()}, {})
    with pytest.raises(ValueError, match=rf"model\.checkpoint: .*other\.safetensors: {says}"):
        open_checkpoint(str(path), str(tmp_path))


def test_a_component_of_a_file_knows_its_config_by_name_and_not_by_place(made) -> None:
    source = made("0.9.7-13b-dev", "single_file").source("transformer")
    assert isinstance(source, InFile)
    assert source.config_name == "transformer-13b"
    assert set(source.changes) == {"attention_head_dim", "cross_attention_dim", "caption_channels"}

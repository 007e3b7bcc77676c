"""Models that people have trouble with: named as what they are before any text is fetched, never read as another."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GraniteMoeSharedConfig,
    ModernBertDecoderConfig,
    PhimoeConfig,
    Qwen2MoeConfig,
    T5Config,
)

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import ModelFolder, Trust, folder_name, model_hash
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.look import look
from rare_tokens.ingest.run.request import Options, identify
from tests.support.tiny import SUPPORTED, VOCABULARY, save_folder, tiny_corpus, tiny_tokenizer

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {
    "beside the MLP": GraniteMoeSharedConfig(**SMALL, num_local_experts=4, shared_intermediate_size=16),
    "a shared one inside it": DeepseekV3Config(
        **SMALL, moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, n_group=2,
        topk_group=1, first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
        v_head_dim=8,
    ),
    "a shared one with a gate": Qwen2MoeConfig(
        **SMALL, moe_intermediate_size=16, shared_expert_intermediate_size=48, num_experts=4, num_experts_per_tok=2
    ),
    "in its place": PhimoeConfig(**SMALL, num_local_experts=4),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return save_folder(tmp_path / "model", SUPPORTED["llama"])


def edit(folder, file="config.json", **changes):
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | changes))


def add_weights(folder, **tensors):
    file = folder / "model.safetensors"
    save_file(
        load_file(file) | {name.replace("__", "."): value for name, value in tensors.items()}, file, {"format": "pt"}
    )


def looked(folder, trust=Trust(), layer=-1, ignore=()):  # noqa: B008
    return look(locate(str(folder), None, trust), trust, layer, ignore)


def refused(folder, **options):
    with pytest.raises(UserError) as error:
        looked(folder, **options)
    assert len(str(error.value)) <= 600
    return str(error.value)


def test_weights_that_the_model_does_not_take_are_refused_by_name(folder):
    add_weights(folder, model__layers__1__self_attn__q_proj__bias=torch.randn(32))
    said = refused(folder)
    assert "1 tensor (model.layers.1.self_attn.q_proj.bias)" in said
    assert "--ignore-weights" in said
    assert looked(folder, ignore=("*.bias",)).ignored_weights == ("model.layers.1.self_attn.q_proj.bias",)


def test_layers_that_the_configuration_does_not_count_are_refused(folder):
    edit(folder, num_hidden_layers=1)
    said = refused(folder)
    assert "model.layers.1." in said
    assert "counts 1 layers, the weights have 2" in said
    assert len(looked(folder, ignore=("model.layers.1.*",)).ignored_weights) == 9


@pytest.mark.parametrize("layers", [3, 10**9])
def test_layers_without_weights_are_refused_before_they_are_built(folder, layers):
    edit(folder, num_hidden_layers=layers)
    assert f"counts {layers} layers (num_hidden_layers), but its weights have 2" in refused(folder)


def test_a_weight_of_another_shape_is_refused_with_both_shapes(folder):
    edit(folder, vocab_size=VOCABULARY + 88)
    assert "lm_head.weight is 300 × 32 in its weights and 388 × 32 by its config.json (and 1 more)" in refused(folder)


def test_what_every_version_works_out_anew_is_no_weight(tmp_path):
    folder = save_folder(tmp_path / "gpt2", SUPPORTED["gpt2"])
    masks = {f"transformer__h__{i}__attn__bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8) for i in range(2)}
    add_weights(folder, **masks, transformer__h__0__attn__masked_bias=torch.tensor(-1e4))
    assert looked(folder).ignored_weights == ()


def test_weights_that_the_library_passes_over_count_too(folder, monkeypatch):
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"^mtp\..*"])
    add_weights(folder, mtp__fc__weight=torch.randn(4, 4))
    assert "1 tensor (mtp.fc.weight)" in refused(folder)
    assert looked(folder, ignore=("mtp.*",)).ignored_weights == ("mtp.fc.weight",)


@pytest.mark.parametrize("layout", EXPERTS)
def test_a_mixture_of_experts_is_refused_by_that_name(tmp_path, layout):
    torch.manual_seed(0)
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_config(EXPERTS[layout]).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert "layer 1 is a mixture of experts" in refused(folder)


def test_a_dense_layer_of_a_model_of_experts_is_taken(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_config(EXPERTS["a shared one inside it"]).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert looked(folder, layer=0).config.num_hidden_layers == 2


@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_is_to_be_merged_first(folder, tmp_path, alone):
    values = {"peft_type": "LORA", "base_model_name_or_path": "somebody/base"}
    if alone:
        folder = tmp_path / "adapter"
        folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(values))
    assert "a PEFT adapter of somebody/base (adapter_config.json). Merge it" in refused(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(folder, tmp_path, file):
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(UserError, match=f"{file} is a Git LFS pointer, not the file itself. Fetch it"):
        identify(Options(str(folder), corpus=(str(tiny_corpus(tmp_path / "c.jsonl")),), tokens=32, window=16))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("max_position_embeddings", 64.0, "expected int, got float (value: 64.0)"),
        ("rms_norm_eps", "1e-05", "expected float, got str (value: '1e-05')"),
        ("hidden_act", "nonsense", "KeyError: 'nonsense'"),
        ("num_hidden_layers", -2, "num_hidden_layers -2"),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}, "its weights are quantised (gptq)"),
        ("model_type", "model_of_tomorrow", "model_of_tomorrow"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_with_its_value(folder, field, value, said):
    edit(folder, **{field: value})
    assert said in refused(folder)


def test_an_encoder_decoder_is_named(folder, tmp_path):
    T5Config(d_model=32, num_layers=1).save_pretrained(folder)
    assert "t5 is an encoder–decoder" in refused(folder)


def test_attention_that_is_not_installed_gives_way_with_a_word(folder):
    edit(folder, _attn_implementation="flash_attention_2")
    assert looked(folder).notes[0].startswith("The configuration of model asks for flash_attention_2, which is not")


def test_the_model_is_looked_at_before_the_corpus(folder):
    edit(folder, rms_norm_eps="1e-05")
    with pytest.raises(UserError, match="rms_norm_eps"):
        identify(Options(str(folder), corpus=("no such corpus",), tokens=32, window=16))


def test_a_norm_in_the_head_is_found(tmp_path, commands):
    config = ModernBertDecoderConfig(**SMALL, local_attention=16, cls_token_id=1, sep_token_id=2)
    save_folder(tmp_path / "model", config)
    corpus = tiny_corpus(tmp_path / "c.jsonl")
    ended = commands("ingest", "--model", "model", "--corpus", corpus, "--tokens", 32, "--window", 16, "--quiet")
    assert ended.code == 0, ended.err
    assert len(commands.runs()) == 1


def test_only_what_is_loaded_is_in_the_hash(folder):
    found = ModelFolder(folder, "model", "main")
    before = model_hash(found, Trust())
    (folder / "other.safetensors").write_bytes(b"not part of it")
    (folder / "modelling.py").write_text("# code")
    assert model_hash(found, Trust()) == before
    assert model_hash(found, Trust(remote_code=True)) != before


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
            "1 are not there (model-00001-of-00002.safetensors)",
        ),
        ({"weights": {}}, "no `weight_map`"),
        ([1], "no `weight_map`"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(folder, index, said):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert said in refused(folder)


def test_a_snapshot_in_a_cache_is_named_by_its_repository(folder, tmp_path):
    snapshot = tmp_path / "hub" / "models--some-body--tiny--model" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    assert folder_name(snapshot) == "some-body/tiny--model"
    assert locate(str(snapshot), None, Trust()).short_name == "tiny--model"

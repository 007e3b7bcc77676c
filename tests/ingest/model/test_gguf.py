"""GGUF files: the same model as its folder has, its quantisation recorded, and nothing of it passed over."""

import gguf
import numpy as np
import polars as pl
import pytest
import torch

from rare_tokens import warehouse
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.look import look
from rare_tokens.ingest.model.tokenizer import load_tokenizer
from rare_tokens.ingest.text.reading import token_ids
from tests.support.gguf_files import gguf_model, save_as_folder, write_gguf
from tests.support.tiny import tiny_corpus, tiny_tokenizer

F32 = gguf.GGMLQuantizationType.F32


def loaded(path, ignore=()):
    found = locate(str(path), None, Trust())
    look(found, Trust(), -1, ignore)
    return load_model(found, dtype="float32", device="cpu", trust=Trust(), ignore=ignore)


def test_weights_and_tokens_are_the_files_own(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", F32)
    ours, theirs = loaded(path).state_dict(), gguf_model().state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    text = ["the cat sat on 12 mats"]
    tokenizer = load_tokenizer(locate(str(path), None, Trust()), Trust())
    assert token_ids(tokenizer, text) == token_ids(tiny_tokenizer(), text)


@pytest.mark.slow
def test_a_file_and_a_folder_of_the_same_weights_give_the_same_effects(tmp_path, commands):
    path = write_gguf(tmp_path / "tiny.gguf")
    folder = save_as_folder(path, tmp_path / "folder")
    corpus = tiny_corpus(tmp_path / "c.jsonl")
    for model in (path, folder):
        ended = commands("ingest", "--model", model, "--corpus", corpus, "--tokens", 32, "--window", 16, "--quiet")
        assert ended.code == 0, ended.err
    with warehouse.open(tmp_path / "rare_tokens.duckdb") as opened:
        runs = opened.sql("select *, options ->> '$.model' as given from dim_run order by model")
        facts = opened.sql("from fct_effect order by run_id, position_id, neuron").partition_by("run_id")
    assert runs["model"].to_list() == ["folder", "tiny"]
    assert runs["quantisation"].to_list() == [None, "Q8_0 (16 tensors), F32 (5 tensors)"]
    assert runs["given"].to_list() == ["folder", "tiny.gguf"], "as it can be given again"
    assert runs["tokenizer_id"].n_unique() == 1
    assert facts[0].drop("run_id").equals(facts[1].drop("run_id"))
    assert facts[0].select(pl.col("delta_loss").abs().max()).item() > 1e-3


def test_a_folder_with_one_file_is_that_model(tmp_path):
    write_gguf(tmp_path / "models" / "a.gguf")
    found = locate(str(tmp_path / "models"), None, Trust())
    assert (found.name, found.gguf) == ("models", "a.gguf")
    (tmp_path / "models" / "b.gguf").write_bytes(b"")
    with pytest.raises(UserError, match=r"models: 2 GGUF files \(a.gguf, b.gguf\). Name one"):
        locate(str(tmp_path / "models"), None, Trust())


def test_what_lies_beside_the_file_has_no_say(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", F32)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "adapter_config.json").write_text("{}")
    tokenizer = load_tokenizer(locate(str(path), None, Trust()), Trust())
    assert token_ids(tokenizer, ["the cat"]) == token_ids(tiny_tokenizer(), ["the cat"])
    loaded(path)


def test_a_tensor_that_the_library_passes_over_is_refused(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tensors={"rope_freqs.weight": np.ones(8, dtype=np.float32)})
    with pytest.raises(UserError, match=r"1 tensor \(rope_freqs.weight\) that the model .* does not take"):
        loaded(path)
    loaded(path, ignore=("rope_freqs.*",))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("llama.rope.scaling.factor", 8.0), ("llama.attention.sliding_window", 16), ("llama.logit_scale", 0.25),
     ("llama.expert_count", 8)],
)  # fmt: skip
def test_a_setting_that_the_library_passes_over_is_refused(tmp_path, setting, value):
    with pytest.raises(UserError, match=f"its setting {setting} = {value} is not read"):
        loaded(write_gguf(tmp_path / "tiny.gguf", settings={setting: value}))
    loaded(write_gguf(tmp_path / "tiny.gguf", settings={"llama.rope.scaling.type": "none"}))


def test_text_is_split_as_the_file_says(tmp_path):
    text = ["8½ ¼"]
    plain, digits = (write_gguf(tmp_path / f"{pre}.gguf", pre=pre) for pre in ("gpt-2", "smollm"))
    splits = []
    for path in (plain, digits):
        tokenizer = load_tokenizer(locate(str(path), None, Trust()), Trust())
        splits.append([piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text[0])])
    assert splits == [["8ÂĐ", "ĠÂĐ"], splits[1]] or splits[0] != splits[1]
    assert all(sum(character.isdigit() for character in piece) <= 1 for piece in splits[1])
    for pre in ("a-way-of-tomorrow", None):
        path = write_gguf(tmp_path / "other.gguf", pre=pre)
        with pytest.raises(UserError, match=r"how its tokenizer splits text \(tokenizer.ggml.pre = (a-way|none)"):
            load_tokenizer(locate(str(path), None, Trust()), Trust())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as GGUF"),
        (b"GGUF\x03\x00\x00\x00", "cannot be read as GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "tiny.gguf is a Git LFS pointer"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, said):
    (tmp_path / "tiny.gguf").write_bytes(content)
    with pytest.raises(UserError, match=said):
        loaded(tmp_path / "tiny.gguf")


def test_one_of_several_files_is_named(tmp_path):
    path = tmp_path / "big-00001-of-00003.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"one of several files of big\. Merge them first"):
        locate(str(path), None, Trust())

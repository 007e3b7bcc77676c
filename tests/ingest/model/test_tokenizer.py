"""Token ids are those of tokenizer.json, whatever class the library picks for a model's type."""

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rare_tokens import warehouse
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import ModelFolder, Trust
from rare_tokens.ingest.model.tokenizer import HARD_STRINGS, load_tokenizer, require_file_ids
from rare_tokens.ingest.text.reading import begin_token_note, token_ids
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus, tiny_tokenizer

TEXT = "the cat sat on the mat and the dog ran to the house"


def spaces_as_signs() -> PreTrainedTokenizerFast:
    """A tokenizer that is not byte-level: spaces are ▁, as in Llama's first ones."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.decoder = MetaspaceDecoder()
    trainer = BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def with_tokenizer(folder, kind, tokenizer) -> ModelFolder:
    save_folder(folder, SUPPORTED[kind])
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("tokenizer_class", None)  # as it is missing, or another's, in folders that were converted
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return ModelFolder(folder, "model", "main")


def file_ids(found: ModelFolder, text: str) -> list[int]:
    return Tokenizer.from_file(str(found.path / "tokenizer.json")).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "llama", "gpt_neox", "cohere", "phi", "opt"])
@pytest.mark.parametrize("make", [spaces_as_signs, tiny_tokenizer])
def test_the_file_decides(tmp_path, kind, make):
    found = with_tokenizer(tmp_path / "model", kind, make())
    tokenizer = load_tokenizer(found, Trust(), [TEXT])
    assert token_ids(tokenizer, [TEXT])[0] == file_ids(found, TEXT)
    require_file_ids(found, tokenizer, [TEXT, *HARD_STRINGS])
    assert tokenizer.eos_token is not None


def test_the_library_would_have_picked_another(tmp_path):
    found = with_tokenizer(tmp_path / "model", "qwen2", spaces_as_signs())
    picked = AutoTokenizer.from_pretrained(found.path)
    assert token_ids(picked, [TEXT])[0] != file_ids(found, TEXT), "nothing is tested if the library agrees"
    with pytest.raises(UserError, match="gives other token ids than the tokenizer that the library makes"):
        require_file_ids(found, picked, [TEXT])


def test_a_file_that_cannot_be_read_is_named_with_the_librarys_version(tmp_path):
    found = with_tokenizer(tmp_path / "model", "gpt2", tiny_tokenizer())
    values = json.loads((found.path / "tokenizer.json").read_text())
    values["pre_tokenizer"]["type"] = "NewKind"
    (found.path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(
        UserError, match=r"its tokenizer.json cannot be read by tokenizers \d+\.\d+\.\d+ \(.*PreTokenizer"
    ):
        load_tokenizer(found, Trust())


def test_a_begin_token_of_the_tokenizers_own_is_told(tmp_path):
    tokenizer = tiny_tokenizer()
    assert begin_token_note(tokenizer) is None
    begin = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    assert f"begins each text with {begin}" in str(begin_token_note(tokenizer))


def test_the_warning_goes_when_the_option_is_given(tmp_path, commands):
    folder, tokenizer = save_folder(tmp_path / "model", SUPPORTED["llama"]), tiny_tokenizer()
    begin = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    asked = ["ingest", "--model", folder, "--corpus", tiny_corpus(tmp_path / "c.jsonl"), "--tokens", 32, "--window", 16]
    warnings = []
    for option in ([], ["--begin-token"]):
        assert commands(*asked, *option).code == 0
    with warehouse.open(tmp_path / "rare_tokens.duckdb") as opened:
        warnings = opened.sql("select warnings::varchar as said from dim_run order by created_at, run_id")["said"]
    assert sum("--begin-token puts it" in said for said in warnings) == 1


@pytest.mark.parametrize(("content", "named"), [(b"\n\x0e\n\x05<unk>", True), (b"IQ== 0\nIg== 1\n", False)])
def test_a_sentencepiece_model_takes_its_packages(tmp_path, monkeypatch, content, named):
    found = with_tokenizer(tmp_path / "model", "llama", tiny_tokenizer())
    (found.path / "tokenizer.json").unlink()
    (found.path / "tokenizer.model").write_bytes(content)
    monkeypatch.setattr("rare_tokens.ingest.model.tokenizer._is_installed", lambda module: module != "sentencepiece")
    with pytest.raises(UserError) as refused:
        load_tokenizer(found, Trust())
    said = "is a SentencePiece model, and reading it takes the package sentencepiece. Install it: python -m pip install"
    assert (said in str(refused.value)) == named

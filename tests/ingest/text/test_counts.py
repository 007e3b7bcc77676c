"""Token counts: against a count in plain Python, and against count files of every wrong kind."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rare_tokens.common.errors import UserError
from rare_tokens.common.run_warnings import SMALL_SOURCE
from rare_tokens.ingest.text import counts as counting
from rare_tokens.ingest.text.corpus import Corpus, open_corpus
from rare_tokens.ingest.text.counts import Frequencies, read_count_file
from rare_tokens.ingest.text.documents import Document
from rare_tokens.ingest.text.hub_dataset import HubDataset
from rare_tokens.ingest.text.reading import read_documents, read_limit
from rare_tokens.ingest.text.windows import Packer, Sample
from tests.support.corpora import count_corpus, draw_sample
from tests.support.tiny import VOCABULARY, tiny_tokenizer

TEXTS = [f"the {number} cats <|endoftext|> sat" * (number % 5 + 1) for number in range(200)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def corpus_of(texts: list[str]) -> Corpus:
    return Corpus("texts", iter([(text, "texts") for text in texts]))


STARTED: list[int] = []  # the seed of each stream that was begun


class Stream(HubDataset):
    """An endless stream."""

    def documents(self, seed: int) -> Iterator[Document]:
        STARTED.append(seed)
        number = 0
        while True:
            text = TEXTS[number % len(TEXTS)] + f" {number}"
            yield Document(text, "c4", hashlib.sha256(text.encode()).hexdigest())
            number += 1


def streamed() -> Corpus:
    return Corpus("c4", iter(()), [Stream("c4", "allenai/c4", "en", "train", "0" * 40)])


def sample_and_count(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, *, seed: int, limit: int | None, **how: Any
) -> tuple[Sample, Frequencies]:
    """A sample and the counts of its corpus, from one pass."""
    packer, counter = Packer(tokenizer, **how), counting.Counter(tokenizer, VOCABULARY, limit)
    read_documents(corpus.documents(seed), tokenizer, [packer, counter])
    return packer.sample(corpus.name), counter.frequencies(corpus.name)


def count_plainly(texts: list[str], tokenizer: Any) -> Counter[int]:
    return Counter(
        token
        for text in texts
        for token in tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    )


def test_a_corpus_in_hand_is_counted_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    told: list[int] = []
    counts = count_corpus(
        corpus_of(TEXTS),
        tokenizer,
        vocabulary_size=VOCABULARY + 12,
        seed=0,
        progress=lambda n=1: told.append(n),
    )
    expected = count_plainly(TEXTS, tokenizer)
    assert counts.counts.dtype == np.int64
    assert {token: count for token, count in enumerate(counts.counts.tolist()) if count} == dict(expected)
    assert len(counts.counts) == VOCABULARY + 12
    assert sum(told) == expected.total()
    assert counts.name == "counted over texts"


def test_counts_are_the_same_for_every_seed_and_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    first = count_corpus(corpus_of(TEXTS), tokenizer, vocabulary_size=VOCABULARY, seed=0)
    second = count_corpus(corpus_of(TEXTS), tokenizer, vocabulary_size=VOCABULARY + 9, seed=1)
    other = count_corpus(corpus_of(TEXTS[1:]), tokenizer, vocabulary_size=VOCABULARY, seed=0)
    assert first.source_id == second.source_id != other.source_id
    assert np.array_equal(first.counts, second.counts[:VOCABULARY])


def test_separators_are_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    backend = tokenizer.backend_tokenizer
    parted = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="a")
    counts = count_corpus(corpus_of(["banana"] * 3), parted, vocabulary_size=VOCABULARY, seed=0).counts
    assert counts[backend.token_to_id("a")] == 0
    assert counts[backend.token_to_id("b")] == 3


def test_a_stream_is_counted_to_the_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    counts = count_corpus(streamed(), tokenizer, vocabulary_size=VOCABULARY, seed=0, limit=5_000).counts
    read: list[str] = []
    documents = streamed().documents(0)
    while count_plainly(read, tokenizer).total() < 5_000:
        read.append(next(documents).text)
    assert counts.sum() == count_plainly(read, tokenizer).total()


@pytest.mark.parametrize("limit", [100, 9_000])
def test_sample_and_counts_take_one_pass_over_a_stream(tokenizer: PreTrainedTokenizerFast, limit: int) -> None:
    how: dict[str, Any] = {"positions": 1_024, "window": 64, "seed": 3}
    STARTED.clear()
    sample, counts = sample_and_count(streamed(), tokenizer, limit=limit, **how)
    assert STARTED == [3]
    alone = draw_sample(streamed(), tokenizer, **how)
    assert np.array_equal(sample.tokens, alone.tokens)
    assert sample.documents.equals(alone.documents)
    expected = count_corpus(streamed(), tokenizer, vocabulary_size=VOCABULARY, seed=3, limit=limit)
    assert np.array_equal(counts.counts, expected.counts)
    assert counts.source_id == expected.source_id


def test_sample_and_counts_of_a_corpus_in_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = corpus_of(TEXTS)
    assert read_limit(corpus) is None
    assert read_limit(streamed()) == SMALL_SOURCE
    how: dict[str, Any] = {"window": 8, "seed": 0, "limit": read_limit(corpus)}
    sample, counts = sample_and_count(corpus, tokenizer, positions=64, begin_token=True, **how)
    assert counts.counts.sum() == count_plainly(TEXTS, tokenizer).total()
    assert sample.tokens.shape == (8, 9)
    with pytest.raises(UserError, match=r"has .* tokens, enough for"):
        sample_and_count(corpus, tokenizer, positions=2**20, **how)


def test_a_small_source_is_warned_of(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    counts = count_corpus(corpus_of(TEXTS), tokenizer, vocabulary_size=VOCABULARY, seed=0)
    (warning,) = counts.warnings
    assert warning.startswith(f"Token frequencies rest on {counts.counts.sum():,} tokens (counted over texts), fewer")
    large = np.full(VOCABULARY, SMALL_SOURCE)
    np.save(tmp_path / "large.npy", large)
    assert read_count_file(tmp_path / "large.npy", VOCABULARY, VOCABULARY).warnings == []


def test_a_token_outside_the_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"gives token \d+, but the model's vocabulary has 60 tokens"):
        count_corpus(corpus_of(TEXTS), tokenizer, vocabulary_size=60, seed=0)


def test_real_counts_of_a_real_corpus(real_inputs: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / "gpt2")
    corpus = open_corpus([str(real_inputs / "corpora" / "tinystories")])
    counts = count_corpus(corpus, tokenizer, vocabulary_size=50_257, seed=0).counts
    assert tokenizer.decode([int(counts.argmax())]) in (".", " the")
    assert counts[tokenizer.eos_token_id] == 0
    assert counts[tokenizer.convert_tokens_to_ids("ĠLily")] > 500


# Count files


@pytest.mark.parametrize(
    ("name", "vocabulary", "size"),
    [("gpt2-openwebtext", 50_257, 50_257), ("pythia-pile", 50_304, 50_277), ("novella-training", 8_192, 8_192)],
)
def test_published_counts(real_inputs: Path, name: str, vocabulary: int, size: int) -> None:
    path = real_inputs / "frequencies" / f"{name}.npy"
    read = read_count_file(path, vocabulary, size)
    raw = np.load(path)
    assert np.array_equal(read.counts[: len(raw)], raw)
    assert not read.counts[len(raw) :].any()
    assert len(read.counts) == vocabulary
    assert read.name == f"{name}.npy"
    assert read.warnings == []


def test_a_wrong_length_says_both(real_inputs: Path) -> None:
    path = real_inputs / "frequencies" / "gpt2-openwebtext.npy"
    with pytest.raises(UserError) as caught:
        read_count_file(path, 50_304, 50_277)
    assert "has 50,257 counts; this model needs 50,277, the tokenizer's size, or 50,304" in str(caught.value)
    with pytest.raises(UserError, match=r"has 50,257 counts; this model needs 8,192, the tokenizer's size\."):
        read_count_file(path, 8_192, 8_192)


@pytest.mark.parametrize("kind", ["<i8", ">i8", "<i4", "<u4", "u1"])
def test_any_integers_that_fit(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "counts.npy", np.array([1, 2, 250, 0], dtype=kind))
    read = read_count_file(tmp_path / "counts.npy", 6, 4)
    assert read.counts.tolist() == [1, 2, 250, 0, 0, 0]
    assert read.counts.dtype == np.int64
    assert read.counts.flags.writeable


def refusal(path: Path, content: Any, vocabulary: int = 4, size: int = 3) -> str:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError) as caught:
        read_count_file(path, vocabulary, size)
    return str(caught.value)


def test_count_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    assert refusal(path, None) == f"There is no count file {path}."
    assert "holds float64; counts are int64" in refusal(path, np.array([1.0, np.nan, 2.0]))
    assert "holds uint64; counts are int64" in refusal(path, np.array([1, 2, 2**63], dtype=np.uint64))
    assert "holds bool" in refusal(path, np.array([True, False, True]))
    assert "a negative count, -5 of token 1" in refusal(path, np.array([1, -5, 3]))
    assert "has no count above zero" in refusal(path, np.zeros(3, dtype=np.int64))
    assert "has the shape (3, 1)" in refusal(path, np.ones((3, 1), dtype=np.int64))
    assert "has the shape ()" in refusal(path, np.array(3))
    assert "has 5 counts" in refusal(path, np.arange(5))
    assert "has 0 counts" in refusal(path, np.arange(0))
    assert "vocabulary of 2 lacks" in refusal(path, np.arange(3), vocabulary=2)
    assert "is not an array" in refusal(path, b"")
    assert "is not an array" in refusal(path, b"just text")


def test_count_files_with_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    np.save(path, np.array([1, {"a": 2}, 3], dtype=object), allow_pickle=True)
    assert "is not an array" in refusal(path, None)
    assert "is not an array" in refusal(path, b"\x80\x04cos\nsystem\n(S'echo pwned'\ntR.")


def test_archives_and_truncated_or_boastful_files(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    np.savez(tmp_path / "archive.npz", counts=np.arange(3))
    assert "is an archive of arrays" in refusal(path, (tmp_path / "archive.npz").read_bytes())
    np.save(path, np.arange(3))
    whole = path.read_bytes()
    assert "is not an array" in refusal(path, whole[:-4])
    assert "is not an array" in refusal(path, whole.replace(b"(3,), ", b"(9" + b"9" * 9 + b",), "))
    (tmp_path / "folder.npy").mkdir()
    assert "is not an array" in refusal(tmp_path / "folder.npy", None)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of a damaged header, which numpy parses as Python
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=40), at=st.integers(0, 150))
def test_any_damage_gives_counts_or_a_user_error(tmp_path: Path, content: bytes, at: int) -> None:
    path = tmp_path / "counts.npy"
    np.save(path, np.arange(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    said = ""
    try:
        counts = read_count_file(path, 4, 3).counts
    except UserError as error:
        said = str(error)
        counts = np.array([0, 1, 2, 0])
    assert counts.sum() > 0
    assert counts.min() >= 0
    assert said == "" or str(path) in said

"""The sample: how documents become windows, against the definition in plain Python."""

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import schema
from rare_tokens.ingest.text import reading
from rare_tokens.ingest.text.corpus import Corpus, open_corpus
from rare_tokens.ingest.text.documents import Document
from rare_tokens.ingest.text.reading import separator_token_id, tokenised_documents
from rare_tokens.ingest.text.windows import Sample
from tests.conftest import REPOSITORY
from tests.support.corpora import draw_sample
from tests.support.tiny import tiny_corpus, tiny_tokenizer

SEPARATOR = 0  # of the tiny tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def corpus_of(texts: list[str], name: str = "texts") -> Corpus:
    return Corpus(name, iter([(text, name) for text in texts]))


def read_plainly(
    corpus: Corpus, tokenizer: Any, windows: int, window: int, seed: int, begin: bool
) -> tuple[list[list[int]], list[list[int]], list[Document]] | None:
    """Tokens, documents of targets, and documents drawn, one token at a time; None where the corpus is too short."""
    taken = window if begin else window + 1
    stream: list[tuple[int, int]] = []
    drawn: list[Document] = []
    for document in corpus.documents(seed):
        ids = tokenizer.encode(document.text, add_special_tokens=False)
        if drawn:
            stream.append((SEPARATOR, -1))
        stream += [(token, len(drawn)) for token in ids]
        drawn.append(document)
        if len(stream) >= windows * taken:
            break
    else:
        return None
    cut = [stream[k * taken : (k + 1) * taken] for k in range(windows)]
    if begin:
        cut = [[(tokenizer.bos_token_id, -1), *part] for part in cut]
    return [[t for t, _ in part] for part in cut], [[d for _, d in part[1:]] for part in cut], drawn


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    window=st.integers(1, 9),
    windows=st.integers(1, 6),
    seed=st.integers(0, 3),
    begin=st.booleans(),
)
def test_sample_is_what_the_specification_says(
    tokenizer: PreTrainedTokenizerFast, lengths: list[int], window: int, windows: int, seed: int, begin: bool
) -> None:
    texts = ["".join(chr(97 + (7 * number + k) % 26) for k in range(length)) for number, length in enumerate(lengths)]
    corpus = corpus_of(texts)
    expected = read_plainly(corpus, tokenizer, windows, window, seed, begin)
    how: dict[str, Any] = {"positions": windows * window, "window": window, "seed": seed, "begin_token": begin}
    if expected is None:
        with pytest.raises(UserError, match=f"--tokens {windows * window} needs"):
            draw_sample(corpus, tokenizer, **how)
        return
    tokens, owners, drawn = expected
    sample = draw_sample(corpus, tokenizer, **how)
    assert sample.tokens.tolist() == tokens
    assert sample.document_ids.tolist() == owners
    assert sample.separator_token_id == SEPARATOR
    flat = [document for row in owners for document in row]
    assert sample.documents.rows() == [
        (
            number,
            hashlib.sha256(document.text.encode()).hexdigest(),
            "texts",
            len(tokenizer.encode(document.text, add_special_tokens=False)),
            flat.index(number) if number in flat else None,
        )
        for number, document in enumerate(drawn)
    ]


def test_sample_has_the_types_of_the_contract(tokenizer: PreTrainedTokenizerFast) -> None:
    sample = draw_sample(corpus_of(["the cat sat on the mat"] * 9), tokenizer, positions=12, window=4, seed=0)
    assert sample.tokens.shape == (3, 5)
    assert sample.document_ids.shape == (3, 4)
    assert sample.tokens.dtype == sample.document_ids.dtype == np.int64
    assert sample.documents.schema == pl.DataFrame(schema("dim_document").empty_table()).schema


def test_reading_stops_once_there_is_enough(tokenizer: PreTrainedTokenizerFast) -> None:
    class Watched(Corpus):
        drawn = 0

        def documents(self, seed: int) -> Iterator[Document]:
            while True:
                self.drawn += 1
                text = f"document {self.drawn}"
                yield Document(text, "endless", hashlib.sha256(text.encode()).hexdigest())

    corpus = Watched("endless", iter(()))
    sample = draw_sample(corpus, tokenizer, positions=8_000, window=80, seed=0)
    assert sample.documents.height < corpus.drawn < sample.documents.height + 2 * reading._BATCH_DOCUMENTS
    positions = sample.documents["first_position"]
    assert positions.null_count() <= 1
    assert positions.drop_nulls().is_sorted()


def test_documents_without_a_token_take_no_place(tokenizer: PreTrainedTokenizerFast) -> None:
    class Holes(Corpus):
        def documents(self, seed: int) -> Iterator[Document]:
            return iter([Document("", "x", "0" * 64), Document("abc", "x", "1" * 64), Document("", "x", "2" * 64),
                         Document("def", "x", "3" * 64)])  # fmt: skip

    sample = draw_sample(Holes("holes", iter(())), tokenizer, positions=6, window=6, seed=0)
    assert sample.documents["document_hash"].to_list() == ["1" * 64, "3" * 64]
    assert tokenizer.decode(sample.tokens[0]) == "abc<|endoftext|>def"


@pytest.mark.parametrize("begin", [False, True])
def test_too_short_a_corpus_says_what_it_has_and_what_would_do(tokenizer: PreTrainedTokenizerFast, begin: bool) -> None:
    corpus = corpus_of(["abcdefghij" * 5] * 3, "short.txt")
    size = sum(len(tokenizer.encode(d.text, add_special_tokens=False)) for d in corpus.documents(0)) + 2
    largest = size // (16 if begin else 17) * 16
    with pytest.raises(UserError) as caught:
        draw_sample(corpus, tokenizer, positions=1600, window=16, seed=0, begin_token=begin)
    said = str(caught.value)
    assert f"The corpus short.txt has {size} tokens, enough for {largest} positions in windows of 16" in said
    assert f"Use --tokens {largest} or fewer" in said
    assert draw_sample(corpus, tokenizer, positions=largest, window=16, seed=0, begin_token=begin).tokens.size > 0
    with pytest.raises(UserError, match=rf"Use --tokens {largest} or fewer"):
        draw_sample(corpus, tokenizer, positions=largest + 16, window=16, seed=0, begin_token=begin)


def test_a_corpus_below_one_window_needs_a_smaller_one(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"enough for 0 positions.*Use a smaller --window or a longer corpus"):
        draw_sample(corpus_of(["abc"]), tokenizer, positions=256, window=256, seed=0)


@pytest.mark.parametrize(("positions", "window"), [(0, 4), (-4, 4), (6, 4), (4, 0)])
def test_positions_that_make_no_windows(tokenizer: PreTrainedTokenizerFast, positions: int, window: int) -> None:
    with pytest.raises(UserError, match="not a positive multiple of the window"):
        draw_sample(corpus_of(["abc"]), tokenizer, positions=positions, window=window, seed=0)


def test_the_separator_is_the_end_token_else_the_begin_token_else_refused() -> None:
    backend = tiny_tokenizer().backend_tokenizer
    first, last = backend.token_to_id("a"), backend.token_to_id("b")
    both = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="a", eos_token="b")
    assert (separator_token_id(both)) == last
    begin = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="a")
    assert separator_token_id(begin) == first
    end = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="b")
    with pytest.raises(UserError, match="--begin-token: the tokenizer has no begin token"):
        draw_sample(corpus_of(["xyz"] * 9), end, positions=4, window=4, seed=0, begin_token=True)
    neither = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(UserError, match="neither an end-of-text token nor a begin token"):
        draw_sample(corpus_of(["xyz"] * 9), neither, positions=4, window=4, seed=0)


def test_a_separators_name_in_a_text_is_text(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "one <|endoftext|> two"
    (tokenised,) = tokenised_documents([Document(text, "x", "")], tokenizer)
    assert SEPARATOR not in tokenised.ids
    assert tokenizer.decode(tokenised.ids) == text
    assert SEPARATOR in tokenizer.encode(text)  # what it would be otherwise


def test_batches_change_nothing(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of([f"the {number} cats " * (number % 7 + 1) for number in range(300)])
    whole = draw_sample(corpus, tokenizer, positions=4_000, window=50, seed=3)
    for documents, characters in ((1, 1 << 20), (7, 40)):
        monkeypatch.setattr(reading, "_BATCH_DOCUMENTS", documents)
        monkeypatch.setattr(reading, "_BATCH_CHARACTERS", characters)
        again = draw_sample(corpus, tokenizer, positions=4_000, window=50, seed=3)
        assert np.array_equal(again.tokens, whole.tokens)
        assert again.documents.equals(whole.documents)


def test_few_documents_are_warned_of(tokenizer: PreTrainedTokenizerFast) -> None:
    long = draw_sample(corpus_of(["abcdefghij" * 50, "klm" * 200]), tokenizer, positions=64, window=8, seed=0)
    assert long.warnings == [
        "All 64 sampled positions come from 1 document; a corpus of more and shorter documents is a broader sample."
    ]
    assert draw_sample(corpus_of(["abc"] * 99), tokenizer, positions=64, window=8, seed=0).warnings == []


# Real tokenizers and texts


def real_sample(real_inputs: Path, name: str, **how: Any) -> tuple[Any, Corpus, Sample]:
    tokenizer = AutoTokenizer.from_pretrained(real_inputs / name)
    corpus = open_corpus([str(real_inputs / "corpora" / "c4-sample")])
    return tokenizer, corpus, draw_sample(corpus, tokenizer, **{"positions": 4096, "window": 256, "seed": 0} | how)


@pytest.mark.parametrize(
    "name", ["tokenizers/gpt2", "tokenizers/gpt-neox", "models/novella/step0", "models/stories260K"]
)
def test_real_windows_read_as_their_documents(
    real_inputs: Path, name: str, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    tokenizer, corpus, sample = real_sample(real_inputs, name, positions=25_088)
    assert capfd.readouterr().err == ""
    assert not recwarn.list
    stream = sample.tokens.reshape(-1)
    separators = np.flatnonzero(stream == sample.separator_token_id).tolist()
    assert len(separators) > 3
    drawn = list(islice(corpus.documents(0), sample.documents.height))
    assert sample.documents["document_hash"].to_list() == [document.digest for document in drawn]
    starts = [0, *(end + 1 for end in separators)]
    for document, start, end, size in zip(drawn, starts, separators, sample.documents["tokens"], strict=False):
        assert end - start == size
        assert tokenizer.decode(stream[start:end]) == document.text
    last = tokenizer.decode(stream[starts[-1] :]).rstrip("\ufffd")  # the window's end may cut a character in two
    assert len(starts) == len(drawn)
    assert drawn[-1].text.startswith(last)
    assert (sample.document_ids == -1).sum() == (sample.tokens[:, 1:] == sample.separator_token_id).sum()


def test_a_tokenizer_with_few_characters(real_inputs: Path) -> None:
    """One that knows no accents gives its unknown token, which belongs to the document like any other."""
    tokenizer, _, sample = real_sample(real_inputs, "models/gpt2basic-bpe384-domain", window=128)
    assert sample.tokens.shape == (32, 129)
    assert tokenizer.unk_token_id != sample.separator_token_id
    assert (sample.document_ids[sample.tokens[:, 1:] == tokenizer.unk_token_id] >= 0).all()


def test_windows_may_begin_with_the_begin_token(real_inputs: Path) -> None:
    tokenizer, _, plain = real_sample(real_inputs, "models/stories260K")
    _, _, begun = real_sample(real_inputs, "models/stories260K", begin_token=True)
    assert (begun.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert tokenizer.bos_token_id not in plain.tokens
    assert np.array_equal(begun.tokens[:, 1:].reshape(-1), plain.tokens.reshape(-1)[: 16 * 256])
    assert begun.documents["first_position"][0] == 0
    assert begun.tokens.shape == plain.tokens.shape


def test_a_document_longer_than_any_context_makes_no_noise(
    real_inputs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / "gpt2")
    corpus = open_corpus([str(real_inputs / "corpora" / "novels")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = draw_sample(corpus, tokenizer, positions=25_088, window=256, seed=0)
    assert sample.tokens.shape == (98, 257)
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def fingerprint(path: str) -> list[str]:
    corpus = open_corpus([path])
    sample = draw_sample(corpus, tiny_tokenizer(), positions=640, window=64, seed=5)
    content = sample.tokens.tobytes(), repr(sample.documents.rows()).encode()
    return [corpus.identity, *(hashlib.sha256(part).hexdigest() for part in content)]


@pytest.mark.slow
def test_another_process_draws_the_same(tmp_path: Path) -> None:
    path = tiny_corpus(tmp_path / "tiny.jsonl")
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(REPOSITORY)}
    code = f"import sys\nfrom tests.ingest.text.test_windows import fingerprint\nprint(*fingerprint({str(path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.split() == fingerprint(str(path))

"""How long drawing the text will take, by a clock that only tokenising moves."""

from types import SimpleNamespace

import pytest

from rare_tokens.ingest.forecast import text
from rare_tokens.ingest.run.request import Options, identify
from rare_tokens.ingest.text import reading
from tests.support.tiny import SUPPORTED, VOCABULARY, save_folder, tiny_corpus

DOCUMENTS, EACH = 900, 0.01  # seconds a document


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return save_folder(folder / "tiny", SUPPORTED["gpt2"]), tiny_corpus(folder / "corpus.jsonl", documents=DOCUMENTS)


@pytest.fixture
def clock(monkeypatch):
    """Seconds so far, and documents tokenised."""
    clock = SimpleNamespace(now=0.0, documents=0)
    real = reading.token_ids

    def token_ids(tokenizer, texts):
        clock.now += EACH * len(texts)
        clock.documents += len(texts)
        return real(tokenizer, texts)

    monkeypatch.setattr(reading, "token_ids", token_ids)
    monkeypatch.setattr(text, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def request_of(inputs, *corpus, **options):
    model, path = inputs
    given = {"tokens": 64, "window": 32, "device": "cpu"} | options
    return identify(Options(str(model), corpus=corpus or (str(path),), **given))[0]


def test_the_whole_corpus_is_counted_at_the_rate_of_its_beginning(inputs, clock):
    request = request_of(inputs)
    clock.now, clock.documents = 0.0, 0
    found = text.few_windows(request, VOCABULARY, 2)
    assert found.material.sample.tokens.shape == (2, 33)
    assert clock.documents < DOCUMENTS, "a beginning is enough"
    assert found.seconds == pytest.approx(EACH * DOCUMENTS, rel=0.02)


def test_where_counts_are_given_only_the_sample_is_read(inputs, clock, tmp_path):
    import numpy as np

    np.save(tmp_path / "counts.npy", np.ones(VOCABULARY, np.int64))
    request = request_of(inputs, frequencies=str(tmp_path / "counts.npy"))
    found = text.few_windows(request, VOCABULARY, 2)
    assert found.seconds < 0.1 * EACH * DOCUMENTS
    assert found.material.counts.counts.tolist() == [1] * VOCABULARY


def test_the_windows_are_the_first_of_the_run(inputs):
    from tests.support.corpora import draw_sample

    request = request_of(inputs, tokens=640)
    found = text.few_windows(request, VOCABULARY, 3)
    how = {"positions": 640, "window": 32, "seed": 0, "begin_token": False}
    sample = draw_sample(request.corpus, request.tokenizer, **how)
    assert (found.material.sample.tokens == sample.tokens[:3]).all()

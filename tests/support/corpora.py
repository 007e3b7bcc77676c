"""What the tests of corpora share: a few texts, files to put them in, and how a refusal reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import Corpus, open_corpus
from rare_tokens.ingest.text.counts import Counter, Frequencies
from rare_tokens.ingest.text.reading import read_documents, read_limit
from rare_tokens.ingest.text.windows import Packer, Sample

TEXTS = ["The first text.", "A second\n\none, über two paragraphs.", "  third, with spaces  "]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def json_lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text, "url": None}) + "\n" for text in texts)


def texts_of(corpus: Corpus, seed: int = 0) -> list[str]:
    return [document.text for document in corpus.documents(seed)]


def refusal(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        open_corpus([str(path)])
    return str(caught.value)


def draw_sample(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, *, seed: int, **how: Any) -> Sample:
    """A sample and nothing else; `how` is of `Packer`."""
    packer = Packer(tokenizer, **how)
    read_documents(corpus.documents(seed), tokenizer, [packer])
    return packer.sample(corpus.name)


def count_corpus(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, *, vocabulary_size: int, seed: int, **how: Any
) -> Frequencies:
    """The counts of a corpus and nothing else; `how` is of `Counter`."""
    counter = Counter(tokenizer, vocabulary_size, **{"limit": read_limit(corpus)} | how)
    read_documents(corpus.documents(seed), tokenizer, [counter])
    return counter.frequencies(corpus.name)

"""What the tests of corpora share: a few texts, files to put them in, and how a refusal reads."""

import json
from pathlib import Path

import pytest

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import Corpus, open_corpus

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

"""The document: what every source of text yields."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text. `domain` is the label of its source, `digest` the sha256 of its text, hex."""

    text: str
    domain: str
    digest: str


def document(text: str, domain: str) -> Document:
    """A text with its digest."""
    return Document(text, domain, hashlib.sha256(text.encode()).hexdigest())

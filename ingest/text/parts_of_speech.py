"""Parts of speech: which word of which sentence a token stands in, and what that word is there (NC A.6).

NC tags with spaCy, whose models are separate downloads. So spaCy is used where an English model is installed, and
otherwise HanTa, whose English model comes with its package; HanTa knows no syntactic roles. Which one was used is part
of the run's identity.
"""

import bisect
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

LEAST_WORDS, MOST_WORDS = 4, 100  # words in what counts as a sentence
PLACES = ("beginning", "middle", "end")  # thirds of a sentence's words

_SPACY_MODELS = ("en_core_web_sm", "en_core_web_md", "en_core_web_lg", "en_core_web_trf")
_REACH = 1_500  # characters searched on each side for the ends of a sentence

_END = re.compile(r"[.!?…][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W\d_])|\n[^\S\n]*\n\s*")
_BLANK_LINE = re.compile(r"\n\s*\n")
_NO_END = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Rev|Hon|Sr|Jr|Capt|Col|Gen|Lt|vs|etc|No|e\.g|i\.e)|\b[^\W\d_])\.\s+$"
)
# Clitics are separate words, as in the texts that both taggers were trained on.
_WORD = re.compile(r"[^\W_]+(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|[^\W_]+|[^\w\s]|_+", re.IGNORECASE)

# The tags of the British National Corpus, by their first letters, as universal parts of speech.
_UNIVERSAL = {
    "AJ": "ADJ", "ORD": "ADJ", "AT": "DET", "DT": "DET", "AV": "ADV", "CJC": "CCONJ", "CJ": "SCONJ", "CRD": "NUM",
    "DPS": "PRON", "EX": "PRON", "PN": "PRON", "IN": "ADP", "PR": "ADP", "ITJ": "INTJ", "NN": "NOUN", "NP": "PROPN",
    "POS": "PART", "TO": "PART", "XX": "PART", "PU": "PUNCT", "VB": "AUX", "VM": "AUX", "V": "VERB",
}  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """How a token is used in one place.

    Attributes:
        part_of_speech: universal part of speech (NOUN, VERB, …) of the word that the token is, or is in.
        place: where that word stands in its sentence, one of `PLACES`.
        is_whole: whether the token is the whole word.
        role: the word's syntactic role, None where the tagger knows none.
        sentence: where the sentence begins in the text.
    """

    part_of_speech: str
    place: str
    is_whole: bool
    role: str | None
    sentence: int


class Tagger(Protocol):
    """Says what the words of a sentence are."""

    name: str

    def tag(self, sentence: str, words: list[tuple[int, int]]) -> list[tuple[str, str | None]]:
        """Universal part of speech and syntactic role of each word, given as its span in the sentence."""


@cache
def tagger_name() -> str:
    """The name and version of the tagger in use, without loading it."""
    if model := _spacy_model():
        return f"spaCy {importlib.metadata.version('spacy')} {model} {importlib.metadata.version(model)}"
    return f"HanTa {importlib.metadata.version('HanTa')}"


@cache
def load_tagger() -> Tagger:
    """The tagger that `tagger_name` names; HanTa's loads in 0.2 s."""
    model = _spacy_model()
    return _Spacy(model) if model else _HanTa()


def usage(text: str, start: int, end: int, tagger: Tagger) -> Usage | None:
    """How the token that covers ``text[start:end]`` is used, or None where it is in no word of a usable sentence.

    A sentence ends at a full stop, question or exclamation mark before a letter, or at a blank line; it has
    `LEAST_WORDS` to `MOST_WORDS` words.
    """
    while start < end and text[start].isspace():
        start += 1
    first, last = _sentence(text, start, end)
    sentence = text[first:last]
    spans = [match.span() for match in _WORD.finditer(sentence)]
    words = [number for number, (begin, _) in enumerate(spans) if sentence[begin].isalnum()]
    holder = bisect.bisect_right(spans, (start - first, len(sentence))) - 1
    if holder not in words or not LEAST_WORDS <= len(words) <= MOST_WORDS or end - first > spans[holder][1]:
        return None
    part_of_speech, role = tagger.tag(sentence, spans)[holder]
    place = PLACES[words.index(holder) * len(PLACES) // len(words)]
    return Usage(part_of_speech, place, spans[holder] == (start - first, end - first), role, first)


def _sentence(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the sentence around ``text[start:end]`` begins and ends."""
    first, last = max(0, start - _REACH), min(len(text), end + _REACH)
    for match in _END.finditer(text, first, last):
        if _BLANK_LINE.search(match[0]) is None and _NO_END.search(text, max(first, match.start() - 6), match.end()):
            continue
        if match.end() <= start:
            first = match.end()
        elif match.start() >= end - 1:
            return first, match.end()
    return first, last


class _HanTa:
    def __init__(self) -> None:
        from HanTa.HanoverTagger import HanoverTagger

        self.name = tagger_name()
        self._tagger: Any = HanoverTagger("morphmodel_en.pgz")

    def tag(self, sentence: str, words: list[tuple[int, int]]) -> list[tuple[str, str | None]]:
        tags = self._tagger.tag_sent([sentence[start:end] for start, end in words], taglevel=0)
        return [(_universal(tag), None) for tag in tags]


class _Spacy:
    def __init__(self, model: str) -> None:
        import spacy

        self.name = tagger_name()
        self._pipeline: Any = spacy.load(model, exclude=["ner", "lemmatizer"])

    def tag(self, sentence: str, words: list[tuple[int, int]]) -> list[tuple[str, str | None]]:
        tokens = list(self._pipeline(sentence))
        starts = [token.idx for token in tokens]
        found = [tokens[bisect.bisect_right(starts, start) - 1] for start, _ in words]
        return [(token.pos_ or "X", token.dep_ or None) for token in found]


def _universal(tag: str) -> str:
    return next((_UNIVERSAL[tag[:size]] for size in (3, 2, 1) if tag[:size] in _UNIVERSAL), "X")


@cache
def _spacy_model() -> str | None:
    if importlib.util.find_spec("spacy") is None:
        return None
    import spacy

    installed = sorted(name for name in spacy.util.get_installed_models() if name.startswith("en_"))
    preferred = [name for name in _SPACY_MODELS if name in installed]
    return next(iter([*preferred, *installed]), None)

"""Texts for matched contexts: sentences that say rare and common nouns at known places, counts, and a tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from tests.support.tiny import VOCABULARY

RARE = ["zebra", "walrus", "badger", "ferret", "donkey", "falcon", "beaver", "lizard", "magpie", "turtle", "weasel"]
RARE += ["gopher", "osprey"]
COMMON = ["table", "window", "garden", "doctor", "letter", "winter", "market", "summer", "bridge", "river", "church"]
COMMON += ["dinner", "farmer", "forest", "island", "mother", "office", "person", "street", "teacher"]
OTHERS = [
    "a",
    "the",
    "The",
    "old",
    "man",
    "saw",
    "near",
    "house",
    "and",
    "then",
    "went",
    "to",
    "by",
    "his",
    "friend",
    ".",
]
SEPARATOR = "<|endoftext|>"
# Where the noun stands: word 1 of 9, word 4 of 9, word 8 of 9 (from 0): the three thirds.
TEMPLATES = {
    "beginning": "the {} saw the old man near the house .",
    "middle": "the old man saw the {} near the house .",
    "end": "the old man went to the house by the {} .",
}
TOTAL = 20_000_000


def matched_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    words = [SEPARATOR, "[UNK]", *OTHERS, *RARE, *COMMON]
    words += [f"unused{number}" for number in range(VOCABULARY - len(words))]
    model = WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    special = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def matched_counts(tokenizer: PreTrainedTokenizerFast, *, scale: float = 1) -> np.ndarray:
    """Counts in which `RARE` are below 1.776e-7 and `COMMON` above 1.776e-5, of 20 million tokens times `scale`."""
    counts = np.zeros(VOCABULARY, dtype=np.int64)
    counts[tokenizer.convert_tokens_to_ids(RARE)] = 3
    counts[tokenizer.convert_tokens_to_ids(COMMON)] = 1_000
    counts[tokenizer.convert_tokens_to_ids("the")] = TOTAL - counts.sum()
    return (counts * scale).astype(np.int64)


def documents(nouns: Sequence[str], seed: int, *, sentences: int = 6, count: int = 30) -> list[str]:
    """Documents of sentences about nouns, each sentence another place."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        chosen = rng.choice(len(nouns), sentences)
        places = rng.choice(list(TEMPLATES), sentences)
        said = (TEMPLATES[place].format(nouns[noun]) for noun, place in zip(chosen.tolist(), places, strict=True))
        texts.append(" ".join(said).replace(". the", ". The").replace("the", "The", 1))
    return texts


def write_corpus(path: Path, texts: Sequence[str]) -> Path:
    """A corpus file of documents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"\n{SEPARATOR}\n".join(texts), encoding="utf-8")
    return path

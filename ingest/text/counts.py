"""How often each token occurs in a source: counted over a corpus, or read from a file of published counts."""

import hashlib
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import Advance
from rare_tokens.common.run_warnings import SMALL_SOURCE
from rare_tokens.ingest.text.reading import Tokenised, separator_token_id

# What numpy raises on a file that is no array: its header is read as a Python expression.
_NO_ARRAY = (OSError, ValueError, EOFError, OverflowError, SyntaxError, TypeError, tokenize.TokenError)


@dataclass(frozen=True)
class Frequencies:
    """Counts of tokens in a source.

    Attributes:
        counts: one per token id of the model's vocabulary, int64.
        name: the source in words.
        source_id: hash of the counts, whatever the vocabulary's padding.
        warnings: what a reader of the results should know about the source.
    """

    counts: NDArray[np.int64]
    name: str
    source_id: str
    warnings: list[str] = field(default_factory=list)


class Counter:
    """Counts the tokens in documents, without separators."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary_size: int,
        limit: int | None = None,
        progress: Advance | None = None,
    ) -> None:
        """Begin at zero; full at `limit` tokens (None: never). `progress` is called with the tokens counted."""
        self._counts = np.zeros(vocabulary_size, dtype=np.int64)
        self._separator = separator_token_id(tokenizer)
        self._limit = limit
        self._progress = progress
        self._total = 0

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self._total >= self._limit

    def add(self, tokenised: Tokenised) -> None:
        """Count a document's tokens.

        Raises:
            UserError: a token is not in the model's vocabulary.
        """
        ids = tokenised.ids[tokenised.ids != self._separator]
        if not len(ids):
            return
        if ids.max() >= len(self._counts):
            raise UserError(
                f"The tokenizer gives token {ids.max()}, but the model's vocabulary has {len(self._counts)} tokens: "
                "they do not belong together."
            )
        self._counts += np.bincount(ids, minlength=len(self._counts))
        self._total += len(ids)
        if self._progress is not None:
            self._progress(len(ids))

    def frequencies(self, corpus_name: str) -> Frequencies:
        """What was counted.

        Raises:
            UserError: no token was counted.
        """
        if not self._total:
            raise UserError(f"The corpus {corpus_name} has no token to count.")
        return frequencies(self._counts, f"counted over {corpus_name}")


def read_count_file(path: Path, vocabulary_size: int, tokenizer_size: int) -> Frequencies:
    """Read published counts: a `.npy` array of integers, one per token id.

    The file has one count per token of the tokenizer, or per token id of the model's vocabulary, which may be padded.
    Ids that it lacks get 0.

    Raises:
        UserError: there is no such file, it is not such an array, its length fits neither, or a count is negative.
    """
    counts = _load(path)
    if counts.ndim != 1 or len(counts) not in (tokenizer_size, vocabulary_size):
        shape = f"{len(counts):,} counts" if counts.ndim == 1 else f"the shape {counts.shape}"
        sizes = f"{tokenizer_size:,}, the tokenizer's size"
        if vocabulary_size != tokenizer_size:
            sizes += f", or {vocabulary_size:,}, the model's vocabulary"
        raise UserError(f"The count file {path} has {shape}; this model needs {sizes}. Is it another tokenizer's?")
    if len(counts) and counts.min() < 0:
        raise UserError(f"The count file {path} has a negative count, {counts.min()} of token {counts.argmin()}.")
    if not counts.any():
        raise UserError(f"The count file {path} has no count above zero.")
    if counts.sum(dtype=np.float64) >= 2.0**63:
        raise UserError(f"The counts in {path} add up to more than an int64 holds; the file is damaged.")
    if counts[vocabulary_size:].any():
        raise UserError(f"The count file {path} counts tokens that the model's vocabulary of {vocabulary_size} lacks.")
    kept = counts[:vocabulary_size]
    return frequencies(np.pad(kept, (0, vocabulary_size - len(kept))), path.name)


def _load(path: Path) -> NDArray[np.int64]:
    """The array of a `.npy` file. It is mapped into memory, so a false size in the header allocates nothing."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"There is no count file {path}.") from error
    except _NO_ARRAY as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"The count file {path} is not an array that numpy.save wrote ({reason}).") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"The count file {path} is an archive of arrays; save the one with the counts by numpy.save.")
    if array.dtype.kind not in "iu" or not np.can_cast(array.dtype, np.int64):
        raise UserError(f"The count file {path} holds {array.dtype}; counts are int64.")
    return np.array(array, dtype=np.int64)


def frequencies(counts: NDArray[np.int64], name: str, warnings: Sequence[str] = ()) -> Frequencies:
    """Counts as a source: with the hash of them, and a warning where they rest on few tokens."""
    digest = hashlib.sha256(np.trim_zeros(counts, "b").astype("<i8").tobytes()).hexdigest()
    total = int(counts.sum())
    warnings = list(warnings)
    if total < SMALL_SOURCE:
        warnings.append(
            f"Token frequencies rest on {total:,} tokens ({name}), fewer than {SMALL_SOURCE:,}: many tokens tie, and "
            "which are rare is uncertain. A larger corpus or a count file (--frequencies FILE.npy) is better."
        )
    return Frequencies(counts, name, "counts-" + digest[:12], warnings)

"""The tokens in a run: its sample, the counts from its frequency source, and what each token in the vocabulary is."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
from transformers import PreTrainedTokenizerBase

from rare_tokens.ingest.text.corpus import Corpus
from rare_tokens.ingest.text.counts import Counter, Frequencies, read_count_file
from rare_tokens.ingest.text.matched import NC_MATCHED, draw_contexts
from rare_tokens.ingest.text.reading import Opening, read_documents, read_limit
from rare_tokens.ingest.text.spelling import token_table
from rare_tokens.ingest.text.windows import Packer, Sample
from rare_tokens.ingest.text.word_list import WORDFREQ, word_list_counts

FROM_CORPUS = "corpus"  # as `--frequencies` names it


@dataclass(frozen=True)
class Material:
    """The sample, counts and tokens of a run; the same for every checkpoint in a series."""

    sample: Sample
    counts: Frequencies
    tokens: pl.DataFrame  # dim_token
    first_texts: tuple[str, ...] = ()  # of the documents that were read


def draw_material(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary_size: int,
    contexts: str,
    frequencies: str,
    positions: int,
    window: int,
    seed: int,
    begin_token: bool,
) -> Material:
    """Draw a sample, or search for matched contexts; count the corpus, unless the counts come from elsewhere.

    Where one pass is enough, for a sample and its counts, a stream is read once.

    Args:
        corpus: what is read.
        tokenizer: the model's.
        vocabulary_size: V, rows of the unembedding.
        contexts: `sample` or `nc-matched`.
        frequencies: `corpus`, `wordfreq`, or a file of counts.
        positions: T, or the most for matched contexts.
        window: positions per window, or tokens before a matched position.
        seed: decides the order of documents.
        begin_token: whether each window starts with the begin token.

    Raises:
        UserError: the corpus is too short, the count file does not fit, or the tokenizer lacks a token.
        NothingToMeasureError: there are no matched contexts, or too few.
    """
    tokens = token_table(tokenizer, vocabulary_size)
    is_matched = contexts == NC_MATCHED
    published = None
    if frequencies == WORDFREQ:
        published = word_list_counts(tokenizer, tokens["text"].to_list())
    elif frequencies != FROM_CORPUS:
        published = read_count_file(Path(frequencies).expanduser(), vocabulary_size, len(tokenizer))
    packer = Packer(tokenizer, positions=positions, window=window, begin_token=begin_token) if not is_matched else None
    counter = Counter(tokenizer, vocabulary_size, read_limit(corpus)) if published is None else None
    opening = Opening()
    readers = [one for one in (packer, counter) if one is not None]
    if readers:
        read_documents(corpus.documents(seed), tokenizer, [*readers, opening])
    sample = None if packer is None else packer.sample(corpus.name)
    counts = published if counter is None else counter.frequencies(corpus.name)
    assert counts is not None
    if sample is None:
        how = {"positions": positions, "window": window, "seed": seed}
        sample = draw_contexts(corpus, tokenizer, counts, tokens, **how, begin_token=begin_token)
    return Material(sample, counts, tokens, tuple(opening.texts))

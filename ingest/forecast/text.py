"""The first windows of a run's sample and the counts so far, and how long drawing all of it will take."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rare_tokens.ingest.run.request import SAMPLE, Request
from rare_tokens.ingest.text.corpus import Corpus, open_corpus
from rare_tokens.ingest.text.counts import Counter, read_count_file
from rare_tokens.ingest.text.matched import NC_MATCHED
from rare_tokens.ingest.text.material import FROM_CORPUS, Material
from rare_tokens.ingest.text.reading import STREAM_LIMIT, Tokenised, batches, tokenised_documents
from rare_tokens.ingest.text.sources import BUILTIN
from rare_tokens.ingest.text.spelling import token_table
from rare_tokens.ingest.text.windows import Packer
from rare_tokens.ingest.text.word_list import WORDFREQ, word_list_counts

READ_SECONDS = 1.0  # documents are read at least for so long, so that their rate is known
_SEARCHES = 2  # passes over the text that matched contexts take beside the one that counts


@dataclass(frozen=True)
class FewWindows:
    """Some windows of a run and what its tokens are, and the seconds that drawing the whole run's text takes."""

    material: Material
    seconds: float


def few_windows(request: Request, vocabulary_size: int, windows: int) -> FewWindows:
    """Read documents until there are so many windows, and long enough to know how fast they are read.

    A stream's first documents come only after thousands were fetched, so the built-in text stands in for it.

    Raises:
        UserError: the text is too short for the run, the count file does not fit, or tokenizer and model do not belong
            together.
    """
    options, tokenizer = request.options, request.tokenizer
    corpus = open_corpus((BUILTIN,)) if request.corpus.streamed else request.corpus
    start = time.perf_counter()
    tokens = token_table(tokenizer, vocabulary_size)
    published = None
    if options.frequencies == WORDFREQ:
        published = word_list_counts(tokenizer, tokens["text"].to_list())
    elif options.frequencies != FROM_CORPUS:
        published = read_count_file(Path(options.frequencies).expanduser(), vocabulary_size, len(tokenizer))
    fixed = time.perf_counter() - start
    counter = Counter(tokenizer, vocabulary_size)
    few, whole = (
        Packer(tokenizer, positions=positions, window=options.window, begin_token=options.begin_token)
        for positions in (windows * options.window, max(1, options.tokens // options.window) * options.window)
    )
    start, documents, read = time.perf_counter(), 0, 0
    for tokenised in _in_time(corpus, request, few):
        for reader in (few, whole, counter):
            reader.add(tokenised)
        documents, read = documents + 1, read + len(tokenised.ids)
    each = (time.perf_counter() - start) / max(1, read)
    is_all = not request.corpus.streamed and documents == corpus.documents_in_hand
    if is_all and options.contexts == SAMPLE:
        whole.sample(corpus.name)  # refuses a text that is too short, as the run would
    sample = few.sample(corpus.name)
    if options.contexts == NC_MATCHED:
        sample = replace(sample, document_ids=sample.document_ids[:, -1:])
    counts = published or counter.frequencies(corpus.name)
    in_hand = read * max(1.0, corpus.documents_in_hand / max(1, documents))
    seconds = fixed + each * _tokens_to_read(request, in_hand, counted=published is None)
    return FewWindows(Material(sample, counts, tokens), seconds)


def _in_time(corpus: Corpus, request: Request, few: Packer) -> Iterator[Tokenised]:
    """Documents until the windows are full and the time is over: whole batches, for all of a batch takes that time."""
    end = time.perf_counter() + READ_SECONDS
    for batch in batches(corpus.documents(request.options.seed)):
        yield from tokenised_documents(batch, request.tokenizer)
        if few.full and time.perf_counter() >= end:
            return


def _tokens_to_read(request: Request, in_hand: float, *, counted: bool) -> float:
    """How many tokens the run reads: of all of the text where it counts them, else enough for its sample."""
    options = request.options
    whole = float(STREAM_LIMIT) if request.corpus.streamed else in_hand
    if options.contexts == NC_MATCHED:
        return whole * (_SEARCHES + counted)
    needed = float(options.tokens + options.tokens // options.window)
    return max(needed, whole) if counted else needed

"""A model's tokenizer, and whether it gives the ids of the folder's own tokenizer.json.

`transformers` picks a tokenizer's class by the model's type and may build another pre-tokenizer than the file has:
spaces are lost, digits split otherwise, and the model then reads text that it was never trained on. So what it gives is
compared with what the file gives, and the file decides.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import TOKENIZER, ModelFolder, Trust, refuse_pointer
from rare_tokens.ingest.model.gguf import alone
from rare_tokens.ingest.model.gguf_header import Header
from rare_tokens.ingest.model.reading import quiet_libraries, reading
from rare_tokens.ingest.text.reading import token_ids

LONGEST = 4_000  # characters of a document that are compared

_SENTENCEPIECE = b"\n"  # such a file begins with the tag of its first field; the other kind is text
_PACKAGES = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}

# What tokenizers differ on: spaces in all places, line ends, digits, capitals, quotes, accents composed and not,
# scripts without spaces, joined emoji, code, names of special tokens, and characters that byte fallback is for.
HARD_STRINGS = (
    " Hello  World   and\ttabs\n\nnew lines \r\nand ends ",
    "Once upon a time, there was a little girl named Lily.",
    "don't we'll I'm THEY'RE it’s “quoted” ‘so’ – — …",
    "1 12 123 1234567890 3.14159 1,000,000 2026-11-30 50% $9.99 1e-5",
    "na\u00efve caf\u00e9 nai\u0308ve cafe\u0301 \u00c5ngstr\u00f6m stra\u00dfe \ufb01n \u2460 \u00bd",
    "日本語のテキスト 中文字符 한국어 ไทย العربية עברית हिन्दी",
    "👩‍👩‍👧 🇩🇪 👍🏽 ♥ \u200b\u00a0\u2003\ufeff",
    "def f(x):\n    return x**2  # comment\n\n\tif (a!=b) { c[i]->d; }",
    "<s> </s> <|endoftext|> <unk> [INST] <|im_start|> <pad>",
    "antidisestablishmentarianism CamelCaseWords snake_case_words http://a.example/b?c=d&e",
    "▁▁under Ġbyte \x07\x1b\x7f \u0378 \U000e0001",
)


def load_tokenizer(found: ModelFolder, trust: Trust, texts: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """The model's tokenizer; never from the network. Its ids are those of `tokenizer.json` where there is one.

    Args:
        found: the model's folder.
        trust: what of it may run code.
        texts: the first documents that will be read, to compare on beside `HARD_STRINGS`.

    Raises:
        UserError: it cannot be loaded, or no way of loading it gives the ids of its file.
    """
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"):
        refuse_pointer(found.tokenizer_path / name)
    _require_packages(found)
    quiet_libraries()
    cannot = f"{found.shown('tokenizer')} cannot be loaded"
    if _has_file(found):  # what is wrong with the file is said by the library that reads it
        with reading(f"{found.shown(TOKENIZER)} cannot be read by tokenizers {tokenizers.__version__}"):
            _file_tokenizer(found)
    with reading(cannot), alone(found) as folder:
        tokenizer = AutoTokenizer.from_pretrained(
            found.above or folder, local_files_only=True, trust_remote_code=trust.remote_code, **found.file_options
        )
    if found.gguf is not None:
        Header.of(found).split_as_the_file(found, tokenizer)
    if _first_difference(found, tokenizer, [*HARD_STRINGS, *texts]) is None:
        return tokenizer
    with reading(cannot):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(found.tokenizer_path, local_files_only=True)
    require_file_ids(found, tokenizer, [*HARD_STRINGS, *texts])
    return tokenizer


def require_file_ids(found: ModelFolder, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> None:
    """Refuse a tokenizer that gives other ids than the model's tokenizer.json; without such a file there is no other.

    Raises:
        UserError: with the first text on which the two differ.
    """
    if (text := _first_difference(found, tokenizer, texts)) is not None:
        raise UserError(
            f"{found.shown(TOKENIZER)} gives other token ids than the tokenizer that the library makes of the folder "
            f"({type(tokenizer).__name__}), on {text[:60]!r} for one. Correct tokenizer_config.json, or leave in the "
            "folder only the files that belong to tokenizer.json."
        )


def _first_difference(found: ModelFolder, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> str | None:
    """The first text to which the tokenizer and the file give different ids; None where there is none, or no file."""
    compared = [text[:LONGEST] for text in texts]
    if not compared or not _has_file(found):
        return None
    with reading(f"{found.shown(TOKENIZER)} cannot be used"):
        theirs = [item.ids for item in _file_tokenizer(found).encode_batch(compared, add_special_tokens=False)]
        ours = token_ids(tokenizer, compared)
    return next((text for text, a, b in zip(compared, ours, theirs, strict=True) if a != b), None)


def _require_packages(found: ModelFolder) -> None:
    """Make sure that a tokenizer which is a SentencePiece model alone can be read: the library would try another kind.

    Raises:
        UserError: a package for it is missing.
    """
    file = found.tokenizer_path / "tokenizer.model"
    if found.gguf is not None or _has_file(found) or not file.is_file():
        return
    with file.open("rb") as stream:
        is_sentencepiece = stream.read(1) == _SENTENCEPIECE
    missing = [name for name, module in _PACKAGES.items() if not _is_installed(module)]
    if is_sentencepiece and missing:
        raise UserError(
            f"{found.shown(file.name)} is a SentencePiece model, and reading it takes the package "
            f"{' and '.join(missing)}. Install it: python -m pip install {' '.join(_PACKAGES)}."
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def _has_file(found: ModelFolder) -> bool:
    return found.gguf is None and (found.tokenizer_path / TOKENIZER).is_file()


def _file_tokenizer(found: ModelFolder) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(found.tokenizer_path / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # as text
    return tokenizer


def tokenizer_id(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> str:
    """Identity of a vocabulary by its content, so that the checkpoints of one series share it.

    The unembedding's rows count: two models may pad one tokenizer to different sizes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = hashlib.sha256(f"{vocabulary_size} {content}".encode("utf-8", "surrogatepass"))
    return "tok-" + digest.hexdigest()[:12]

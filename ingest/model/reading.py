"""What a library raises while it reads a file of the user's, said as the user's to mend: never a bug of ours."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tqdm import tqdm
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from rare_tokens.common.errors import UserError

LONGEST_REASON = 300  # characters
# Their text alone does not say what is wrong: a KeyError's is the key.
_TERSE = (KeyError, IndexError, AttributeError, TypeError, AssertionError, ArithmeticError, RecursionError, MemoryError)


@contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Run a block in which a library reads files of the user's.

    Args:
        what: the beginning of the message, for example ``--model gpt2: its config.json cannot be read``.
        remedy: what to do, a sentence.

    Raises:
        UserError: whatever the library raised, with its own reason.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # Configurations, tokenizers and weights are checked by a dozen libraries, each with exceptions of its own; the
    # Rust ones raise plain Exception, and where they panic a BaseException.
    except BaseException as error:
        raise UserError(f"{what} ({reason_of(error)}).{' ' if remedy else ''}{remedy}") from error


def quiet_libraries() -> None:
    """Keep the libraries' bars and advice off stderr; our own progress stands there."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    modeling_gguf_pytorch_utils.tqdm = partial(tqdm, disable=True)  # it asks no one whether bars are wanted


def reason_of(error: BaseException) -> str:
    """All lines of an error's own message in one, shortened; with its kind where the message alone says little."""
    text = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
    if not text or isinstance(error, _TERSE):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 2].rstrip() + " …"

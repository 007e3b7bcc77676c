"""The embedded default: a small model in checkpoints, its token counts, and a text that every Python carries.

The model's folder is this package's own: `CARD.md` says what the model is, `train.py` made it.
Importing this module is cheap: nothing of torch or transformers.
"""

from pathlib import Path
from pydoc_data.topics import topics

MODEL_FOLDER = Path(__file__).resolve().parent
"""Folder that holds the checkpoints `step*/`, each a complete Hugging Face folder."""

FREQUENCIES = MODEL_FOLDER / "frequencies.npy"
"""Counts of each token id over the training text: int64, as many as the vocabulary has ids."""

REVISIONS = tuple(sorted((item.name for item in MODEL_FOLDER.glob("step*")), key=lambda name: int(name[4:])))
"""Names of the checkpoints, in the order of training."""


def reference_documents() -> list[str]:
    """Python's own language reference as documents, in the alphabetical order of their topics.

    The text is `pydoc_data.topics`, which every CPython carries. It differs a little from one release to the next,
    so whoever reports a figure on it reports a hash of it too. The embedded model never saw it in training.
    """
    return [topics[name] for name in sorted(topics)]

"""Small valid models with one piece of one file changed, and what the loading code makes of them.

A change is drawn by Hypothesis: a value of a JSON tree replaced, added or removed, or bytes put into a file.
"""

import copy
import json
import shutil
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import ModelFolder, Trust, model_hash
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.look import look
from rare_tokens.ingest.model.structure import find_structure
from rare_tokens.ingest.model.tokenizer import load_tokenizer
from tests.support.gguf_files import write_gguf
from tests.support.tiny import DENSE, SUPPORTED, save_folder

LONGEST_MESSAGE = 600  # characters
SECONDS = 60  # until an input counts as one that hangs
KINDS = ("gpt2", "llama_tied", "gpt_neox", "gemma3", "cohere", "opt")
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "model.gguf")

_NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 7, 31, 33, 64, 1 << 20, 1 << 31, 10**12, 10**30, 0.5, -0.5, 1e-30, 1e300])
_WORDS = st.sampled_from(
    ["", "gelu", "relu", "llama", "gpt2", "BPE", "Sequence", "ByteLevel", "auto", "bfloat16", "😀", "x" * 3000]
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _WORDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=4,
)
# (what to do, where in the list of all places, with what)
CHANGES = st.tuples(st.sampled_from(["replace", "remove", "add", "bytes"]), st.integers(0, 1 << 16), _VALUES)
BYTES = st.tuples(st.integers(0, 1 << 16), st.binary(max_size=12), st.integers(0, 9))


class ModelFiles:
    """Valid models in a folder, changed one file at a time; counts how each change ended."""

    def __init__(self, folder: Path) -> None:
        """Save the models."""
        self.folder = folder
        self.ends: Counter[str] = Counter()
        for kind in KINDS:
            save_folder(folder / kind, {**SUPPORTED, **DENSE}[kind])
        write_gguf(folder / "gguf" / "model.gguf")

    def changed(self, file: str, kind: str, change: tuple[str, int, Any], damage: tuple[int, bytes, int]) -> None:
        """Load a model with a file changed; it is taken, or refused in words.

        Raises:
            AssertionError: it ends otherwise.
        """
        folder = self.folder / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder / ("gguf" if file.endswith(".gguf") else kind), folder)
        path = folder / file
        path.write_bytes(_changed(path, change, damage))
        said = ""
        try:
            with _alarm(SECONDS):
                self._load(folder / file if file.endswith(".gguf") else folder)
        except UserError as refused:
            said = str(refused)
        assert len(said) <= LONGEST_MESSAGE, f"{len(said)} characters: {said}"
        self.ends[f"{file}: {'refused' if said else 'taken'}"] += 1

    def _load(self, path: Path) -> None:
        trust = Trust()
        found: ModelFolder = locate(str(path), None, trust)
        looked = look(found, trust, -1)
        load_tokenizer(found, trust, ["The cat sat on the mat."])
        model_hash(found, trust)
        if looked.config.num_hidden_layers * looked.config.hidden_size <= 1 << 12:
            find_structure(load_model(found, dtype="float32", device="cpu", trust=trust))


def _changed(path: Path, change: tuple[str, int, Any], damage: tuple[int, bytes, int]) -> bytes:
    content = path.read_bytes()
    how, place, value = change
    if how == "bytes" or path.suffix == ".gguf":
        at = damage[0] % (min(len(content), 4096) + 1)
        return content[:at] + damage[1] + content[at + damage[2] :]
    if path.suffix == ".safetensors":
        size = struct.unpack("<Q", content[:8])[0]
        header = json.dumps(_edited(json.loads(content[8 : 8 + size]), how, place, value)).encode()
        return struct.pack("<Q", len(header)) + header + content[8 + size :]
    return json.dumps(_edited(json.loads(content), how, place, value)).encode()


def _edited(tree: Any, how: str, place: int, value: Any) -> Any:
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    parent, key = places[place % len(places)]
    if how == "remove":
        del parent[key]
    elif how == "add" and isinstance(parent, dict):
        parent[f"{key}_added"] = value
    else:
        parent[key] = value
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree, those of long lists and tables (a vocabulary) thinned out."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    for key in keys[: max(1, min(len(keys), 24))]:
        yield tree, key
        if isinstance(tree[key], (dict, list)) and tree[key]:
            yield from _places(tree[key])


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def late(_number: int, _frame: Any) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

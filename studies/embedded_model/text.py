"""The training text of the embedded model: the docstrings of the project's installed dependencies.

A document is one module: its docstrings in source order. Left out are paragraphs that are not mostly words, long
paragraphs seen before, and every docstring that shares a run of words with the held-out text.
"""

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OVERLAP_WORDS = 8
REPEATED_PARAGRAPH_CHARACTERS = 60
DOCUMENT_CHARACTERS = 100
LETTER_SHARE = 0.6
ASCII_SHARE = 0.95

_WORD = re.compile(r"\w+")
_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


@dataclass
class Source:
    """One distribution that text was taken from, and how much of it was kept."""

    name: str
    version: str
    licence: str
    documents: int = 0
    characters: int = 0


@dataclass
class TrainingText:
    """Documents, with the facts that the card states about them."""

    documents: list[str]
    sources: list[Source]
    overlapping: int  # docstrings left out because they share OVERLAP_WORDS words in a row with the held-out text
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        """Hash the documents in order, a zero byte after each."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(document.encode() + b"\0")
        self.sha256 = digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """What the training log records about the text."""
        return {
            "sha256": self.sha256,
            "documents": len(self.documents),
            "characters": sum(map(len, self.documents)),
            "bytes": sum(len(document.encode()) for document in self.documents),
            "docstrings_overlapping_reference": self.overlapping,
            "sources": [asdict(source) for source in self.sources if source.documents],
        }


def training_text(pyproject: Path, held_out: Iterable[str], workers: int = 3) -> TrainingText:
    """Collect the docstrings of the installed closure of a project's dependencies.

    Args:
        pyproject: the project's `pyproject.toml`, whose `project.dependencies` begin the closure.
        held_out: texts of which no part may be in the result.
        workers: processes that parse files.
    """
    requirements = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    forbidden = {run for text in held_out for run in word_runs(text)}
    documents: list[str] = []
    sources: list[Source] = []
    seen: set[str] = set()
    overlapping = 0
    with ProcessPoolExecutor(workers) as pool:
        for distribution in dependency_closure(requirements):
            source = Source(distribution.name, distribution.version, licence_of(distribution))
            paths = sorted(
                str(distribution.locate_file(file)) for file in distribution.files or [] if file.suffix == ".py"
            )
            for strings in pool.map(docstrings, paths, chunksize=64):
                clean = [string for string in strings if forbidden.isdisjoint(word_runs(string))]
                overlapping += len(strings) - len(clean)
                document = "\n\n".join(new_prose(clean, seen))
                if len(document) >= DOCUMENT_CHARACTERS:
                    documents.append(document)
                    source.documents += 1
                    source.characters += len(document)
            sources.append(source)
    return TrainingText(documents, sources, overlapping)


def dependency_closure(requirements: Iterable[str]) -> list[metadata.Distribution]:
    """Every installed distribution that the requirements lead to, without extras, sorted by name."""
    found: dict[str, metadata.Distribution] = {}
    open_ends = [Requirement(requirement) for requirement in requirements]
    while open_ends:
        name = canonicalize_name(open_ends.pop().name)
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        needed = [Requirement(line) for line in found[name].requires or []]
        open_ends += [item for item in needed if item.marker is None or item.marker.evaluate({"extra": ""})]
    return [found[name] for name in sorted(found)]


def licence_of(distribution: metadata.Distribution) -> str:
    """The licence a distribution's metadata states, in one line."""
    expression, stated, classifiers = (
        distribution.metadata.get_all(name) or [] for name in ("License-Expression", "License", "Classifier")
    )
    lines = [*expression, *(text.strip() for text in stated if len(text.splitlines()) == 1)]
    lines += [text.split(" :: ")[-1] for text in classifiers if text.startswith("License ::")]
    return lines[0] if lines else "not stated in its metadata"


def docstrings(path: str) -> list[str]:
    """Docstrings of a module, its classes and functions, in source order; none if the file is not Python."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return [text for text in map(ast.get_docstring, nodes) if text]


def new_prose(strings: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Paragraphs that are mostly words and, if long, not yet in `seen`, to which they are added."""
    for string in strings:
        for paragraph in _PARAGRAPH_BREAK.split(string.replace("\0", "")):
            key = " ".join(paragraph.split())
            if not is_prose(key) or key in seen:
                continue
            if len(key) >= REPEATED_PARAGRAPH_CHARACTERS:
                seen.add(key)
            yield paragraph.rstrip()


def is_prose(text: str) -> bool:
    """Whether a paragraph is mostly ASCII and its visible characters mostly letters."""
    visible = [character for character in text if not character.isspace()]
    if not visible:
        return False
    letters = sum(character.isalpha() for character in visible)
    plain = sum(character.isascii() for character in visible)
    return letters >= LETTER_SHARE * len(visible) and plain >= ASCII_SHARE * len(visible)


def word_runs(text: str) -> Iterator[tuple[str, ...]]:
    """Every run of OVERLAP_WORDS words in a row, in lower case, ignoring punctuation and spacing."""
    words = _WORD.findall(text.lower())
    return zip(*(words[start:] for start in range(OVERLAP_WORDS)), strict=False)

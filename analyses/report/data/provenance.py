"""Where the numbers come from: what the runs of a series share, what differs, and the command that makes them again."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rare_tokens.analyses.report.data.series import Run, Series
from rare_tokens.analyses.report.data.text import integer, number

_LABELS = {
    "model": "Model",
    "revision": "Revision",
    "run_id": "Run",
    "status": "Status",
    "status_reason": "Reason",
    "model_hash": "Model hash",
    "quantisation": "Quantisation",
    "layer": "Layer (from 0)",
    "neurons": "Neurons",
    "corpus": "Corpus",
    "corpus_hash": "Corpus hash",
    "frequency_source": "Frequencies from",
    "frequency_source_id": "Frequency source",
    "tokenizer_id": "Tokenizer",
    "positions": "Positions",
    "window_length": "Positions a window",
    "seed": "Seed",
    "ablation": "Ablation",
    "dtype": "Precision",
    "device": "Device",
    "tolerance": "Tolerance (nats)",
    "exact_share": "Pairs computed exactly",
    "self_check_error": "Self-check, numeric (of tolerance)",
    "structural_check_error": "Self-check, hooked model (of tolerance)",
    "self_check_pairs": "Pairs self-checked",
    "code_version": "Version",
    "packages": "Packages",
    "created_at": "Made",
    "seconds": "Seconds",
    "warnings": "Warnings",
}
LINE = 88  # characters, beyond which a command is broken into lines
HASH_LENGTH = 16  # characters shown of a hash; runs.csv has all of it
_ALWAYS_BY_RUN = ("revision", "run_id", "status")
_COMMA_SEPARATED = ("effects",)  # options; other lists are options given several times
_COUNTS = ("layer", "positions", "neurons", "window_length", "self_check_pairs")


@dataclass(frozen=True)
class Facts:
    """Provenance of one series: `shared` label → text, and per run the columns in which runs differ."""

    shared: dict[str, str]
    columns: list[str]
    rows: list[list[str]]
    commands: list[str]


def series_facts(series: Series) -> Facts:
    """What the runs of `series` share and where they differ, as text, with the commands that make them again."""
    shown = [{key: _shown(key, run.row) for key in _LABELS} for run in series.runs]
    by_run = [key for key in _LABELS if key in _ALWAYS_BY_RUN or len({row[key] for row in shown}) > 1]
    by_run = [key for key in by_run if any(row[key] for row in shown)]
    by_run.sort(key=lambda key: key not in _ALWAYS_BY_RUN)
    shared = {label: shown[0][key] for key, label in _LABELS.items() if key not in by_run and shown[0][key]}
    rows = [[row[key] for key in by_run] for row in shown]
    commands = [broken(typed) for typed in dict.fromkeys(command(run) for run in series.runs)]
    return Facts(shared, [_LABELS[key] for key in by_run], rows, commands)


def command(run: Run) -> str:
    """The command that makes a run again, from the options it was made with (`dim_run.options`).

    Options have the command's own names. A folder on the machine that made it is shortened to its last part, because a
    page is passed on.
    """
    options = parsed(run.row["options"])
    if not isinstance(options, Mapping):
        return ""
    words = ["python", "cli.py", "ingest"]
    for name, value in options.items():
        flag = "--" + str(name).replace("_", "-")
        if value is True:
            words.append(flag)
        elif name in _COMMA_SEPARATED and isinstance(value, list):
            words += [flag, ",".join(str(item) for item in value)]
        elif isinstance(value, list):
            words += [word for item in value for word in (flag, _plain(item))]
        elif value is not None and value is not False and value != "":
            words += [flag, _plain(value)]
    return shlex.join(words) if len(words) > 3 else ""


def broken(typed: str) -> str:
    """A command for a shell, with a line of its own for each option where it is long."""
    if len(typed) <= LINE:
        return typed
    lines: list[list[str]] = [[]]
    for word in shlex.split(typed):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines if line)


def parsed(text: object) -> Any:
    """The value of a JSON column of `dim_run`; None if it is absent or does not parse."""
    try:
        return json.loads(str(text)) if text else None
    except json.JSONDecodeError:
        return None


def _plain(value: object) -> str:
    text = str(value)
    absolute = text.startswith(("/", "~", "\\\\")) or re.match(r"^[A-Za-z]:[\\/]", text)
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if absolute else text


def _shown(key: str, row: Mapping[str, Any]) -> str:
    if key == "exact_share":
        pairs = (row["positions"] or 0) * (row["neurons"] or 0)
        return f"{100 * row['exact_pairs'] / pairs:.2g} %" if pairs and row["exact_pairs"] is not None else ""
    value = row[key]
    if value is None:
        return ""
    if key in _COUNTS:
        return integer(value)
    if key.endswith("_hash"):
        return str(value)[:HASH_LENGTH]
    if key == "packages":
        return ", ".join(f"{name} {version}" for name, version in sorted((parsed(value) or {}).items()))
    if key == "warnings":
        return "; ".join(str(item) for item in parsed(value) or [])
    if isinstance(value, float):
        return number(value, 2)
    return str(value)

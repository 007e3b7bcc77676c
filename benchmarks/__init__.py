"""Speed, memory and growth, each printed next to its baseline: `python -m benchmarks.ROOM.NAME`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def result(name: str) -> Path:
    """The committed result of a benchmark: `benchmarks/results/NAME.json`."""
    return ROOT / "benchmarks" / "results" / f"{name}.json"

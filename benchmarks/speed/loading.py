"""What looking at a model before its run costs: names and shapes of its weights, and its tokenizer against its file.

    python -m benchmarks.speed.loading --model FOLDER_OR_FILE.gguf … [--corpus FILE]

The baseline beside each is the library's own loading of the same thing without any check: the configuration alone, and
the tokenizer alone. Asked: the checks cost at most 2 s on SmolLM2-135M. Seconds are the least of three, each after a
first one that is left out, which imports what the model's kind needs. Writes benchmarks/results/loading.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from benchmarks import ROOT
from benchmarks.warehouse.synthetic_runs import machine
from rare_tokens.ingest.model.files import ModelFolder, Trust, model_hash
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.look import look
from rare_tokens.ingest.model.tokenizer import load_tokenizer
from rare_tokens.ingest.text.corpus import open_corpus
from rare_tokens.ingest.text.reading import FIRST_DOCUMENTS

RESULTS = ROOT / "benchmarks" / "results" / "loading.json"
TIMES = 3


def seconds(work: Callable[[], Any]) -> float:
    """The least of a few runs after a first."""
    found = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return round(min(found[1:]), 3)


def measured(found: ModelFolder, texts: list[str]) -> dict[str, Any]:
    """Seconds of each check of one model, and of its baseline."""
    trust, options = Trust(), found.file_options
    row: dict[str, Any] = {
        "model": found.name,
        "form": "GGUF file" if found.gguf else "folder",
        "look": seconds(lambda: look(found, trust, -1)),
        "configuration alone": seconds(lambda: AutoConfig.from_pretrained(found.path, **options)),
        "tokenizer, checked": seconds(lambda: load_tokenizer(found, trust, texts)),
        "tokenizer alone": seconds(lambda: AutoTokenizer.from_pretrained(found.path, **options)),
        "hash of the weights": seconds(lambda: model_hash(found, trust)),
    }
    checks = row["look"] - row["configuration alone"] + row["tokenizer, checked"] - row["tokenizer alone"]
    return row | {"checks": round(checks, 3)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--corpus", default="builtin")
    given = parser.parse_args()
    documents = open_corpus([given.corpus]).documents(0)
    texts = [document.text for document, _ in zip(documents, range(FIRST_DOCUMENTS), strict=False)]
    rows = [measured(locate(str(Path(model)), None, Trust()), texts) for model in given.model]
    for row in rows:
        print(row)
    RESULTS.write_text(json.dumps({"machine": machine(1), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

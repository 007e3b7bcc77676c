"""How close the minutes of `ingest --dry-run` come to those that the ingest takes.

    python -m benchmarks.speed.forecast [--real FOLDER_OR_FILE.gguf] [--data FOLDER] [--only NAME,…]

For each model a dry run and then the ingest, each a command in a process of its own, from start to end. Models: a real
one (SmolLM2-135M is meant), novella, GPT-2 small's shape with random weights, and a small Gemma 2, which
takes the dense path. Asked: measured ÷ forecast minutes within 0.67 and 1.5. Beside them, as the baseline, the minutes
that are reckoned where nothing can be tried. Without `--real` that model is left out. Takes about five minutes on two
cores; on a busy machine both are of another moment, so it wants a quiet one. Writes benchmarks/results/forecast.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from benchmarks import ROOT, result
from benchmarks.methods.forward import SHAPES, model_of
from benchmarks.warehouse.synthetic_runs import machine
from rare_tokens import warehouse
from rare_tokens.ingest.forecast.forecast import reckon
from rare_tokens.ingest.model.weightless import empty_model
from rare_tokens.ingest.run.loading import choose_device
from rare_tokens.ingest.run.request import Options, identify

DATA = Path(os.environ.get("RARE_TOKENS_TEST_DATA", ROOT.parent / "shared" / "data"))
ASKED = 0.67, 1.5  # measured over forecast minutes


@dataclass(frozen=True)
class Case:
    """A model, and the shape of the run that is made of it."""

    name: str
    model: Path
    tokens: int
    window: int
    is_dense: bool = False

    def options(self, corpus: Path) -> list[str]:
        """The options of `ingest`."""
        return [
            "--model", str(self.model), "--corpus", str(corpus), "--tokens", str(self.tokens),
            "--window", str(self.window),
        ]  # fmt: skip


def cases(data: Path, real: Path | None, made: Path) -> list[Case]:
    """The models that are there; those with random weights are made in a folder."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizers" / "gpt2")
    shape = SHAPES["gpt2-small"]
    gpt2 = model_of(shape, shape.layers)
    gemma = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
            bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip
    for name, model in (("gpt2-small", gpt2), ("gemma2", gemma)):
        model.save_pretrained(made / name)
        tokenizer.save_pretrained(made / name)
    found = [
        Case("novella", data / "models" / "novella", 4_096, 256),
        Case("GPT-2 small's shape, random weights", made / "gpt2-small", 4_096, 256),
        Case("Gemma 2, 3 layers, random weights", made / "gemma2", 256, 64, is_dense=True),
    ]
    return [*found, *([] if real is None else [Case(real.stem, real, 4_096, 256)])]


def command(*given: str) -> tuple[float, Any]:
    """Minutes that a command takes from start to end, and the JSON that it prints."""
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *given, "--json", "--quiet"], check=True, stdout=subprocess.PIPE
    )
    return (time.perf_counter() - start) / 60, json.loads(ended.stdout)


def reckoned_minutes(case: Case, corpus: Path) -> float:
    """What a dry run would say without the weights."""
    (request,) = identify(Options(str(case.model), corpus=(str(corpus),), tokens=case.tokens, window=case.window))
    model = empty_model(request.folder.name, request.config, remote_code=False)
    layer = request.layer
    how = {"is_dense": case.is_dense, "found": 0.0, "why": ""}
    return reckon(request, model, layer, choose_device("auto"), **how).minutes  # type: ignore[arg-type]


def compared(case: Case, corpus: Path, folder: Path) -> dict[str, Any]:
    """Forecast and measured minutes of a run, with its stages."""
    path, load = folder / "warehouse.duckdb", machine(0)["load before"]
    path.unlink(missing_ok=True)
    options = [*case.options(corpus), "--warehouse", str(path)]
    trying, (said,) = command("ingest", *options, "--dry-run")
    minutes, _ = command("ingest", *options)
    with warehouse.open(path) as opened:
        stages = json.loads(opened.sql("select stage_seconds from dim_run").item())
    return {
        "model": case.name,
        "load before": load,
        "path": said["path"],
        "positions": case.tokens,
        "forecast, minutes": round(said["minutes"], 3),
        "measured, minutes": round(minutes, 3),
        "measured over forecast": round(minutes / said["minutes"], 2),
        "dry run, minutes": round(trying, 3),
        "reckoned without weights, minutes": round(reckoned_minutes(case, corpus), 3),
        "forecast, seconds by stage": said["stage_seconds"],
        "measured, seconds by stage": stages,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", default="", help="beginnings of names, separated by commas; other rows stay")
    given = parser.parse_args()
    corpus = given.data / "corpora" / "c4-sample" / "c4_sample.jsonl"
    found: dict[str, Any] = machine(torch.get_num_threads()) | {"asked, measured over forecast": ASKED}
    before = json.loads(result("forecast").read_text()) if given.only else found | {"rows": []}
    rows = {row["model"]: row for row in before["rows"]}
    if any(found[name] != before[name] for name in ("machine", "threads")):
        parser.error("--only: the rows that stay are another machine's")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(given.data, given.real, Path(folder)):
            if case.name.startswith(tuple(given.only.split(","))):
                rows[case.name] = compared(case, corpus, Path(folder))
                print(json.dumps(rows[case.name]), flush=True)
    found["rows"] = list(rows.values())
    result("forecast").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    within = [ASKED[0] <= row["measured over forecast"] <= ASKED[1] for row in found["rows"]]
    print(f"{sum(within)} of {len(within)} within {ASKED[0]} and {ASKED[1]}")


if __name__ == "__main__":
    main()

"""Frames for tests of the report: a series of checkpoints whose influence grows from flat to three regimes."""

import json
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.reference import published_values
from rare_tokens.analyses.report.data.inputs import ReportInputs

PRESETS = ("es", "nc", "ds")
HOSTILE = [
    "</script><script>window.hacked = true</script>",
    '<img src=x onerror="window.hacked = true">',
    "\x1b[31mred\x1b[0m",
    "nul\x00byte",
    "\u202eevil\u202c",
    "\u2028line\u2029separators",
    "'\"`${window.hacked = true}",
    "=HYPERLINK(1)",
    "\u0301combining",
    "x" * 10_000_000,
    " 日本語",
    "\ufffd",
]


def make_inputs(
    steps: tuple[int, ...] = (0, 64, 256, 1024, 2048, 3979),
    neurons: int = 1024,
    *,
    model: str = "novella",
    presets: tuple[str, ...] = PRESETS,
    intervals: bool = False,
    seed: int = 0,
) -> ReportInputs:
    """Inputs of one report on a series of `len(steps)` runs of `model`, all numbers drawn."""
    rng = np.random.default_rng(seed)
    frames: dict[str, list[pl.DataFrame]] = {"influence": [], "fits": [], "deviations": [], "tokens": []}
    runs = []
    talent = rng.normal(size=neurons)  # determines a neuron's rank; shared by the groups and growing over steps
    for step in steps:
        run_id = f"{model}-step{step}-{seed:08x}"
        runs.append(_run(run_id, model, f"step{step}", neurons, seed))
        frames["tokens"].append(_tokens(run_id, neurons, rng))
        grown = step / (max(steps) or 1)
        for preset in presets:
            for group in ("rare", "common"):
                score = grown * talent + rng.normal(scale=0.8, size=neurons)
                for name, frame in _group(run_id, preset, group, score, grown, rng).items():
                    frames[name].append(frame)
    joined = {name: pl.concat(parts) for name, parts in frames.items()}
    if intervals:
        joined["influence"] = _signs(joined["influence"])
    fits = joined["fits"]
    return ReportInputs(
        runs=pl.DataFrame(runs),
        **joined,
        published=published_values(),
        quality=_quality([run["run_id"] for run in runs]),
        **(_tested(fits) if intervals else {}),
        command="python cli.py report",
        created_at="2026-11-21T10:00:00Z",
    )


def _tested(fits: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {"intervals": _intervals(fits), "decisions": _decisions(fits), "differences": _differences(fits)}


def _run(run_id: str, model: str, revision: str, neurons: int, seed: int) -> dict[str, Any]:
    options = {"model": model, "corpus": ["/home/someone/texts/c4-sample"], "frequencies": "novella-training.npy"}
    options |= {"begin_token": False, "effects": ["loss", "direct"], "seed": seed, "revision": revision}
    return {
        "run_id": run_id,
        "model": model,
        "revision": revision,
        "training_stage": None,
        "training_step": int(revision.removeprefix("step")),
        "training_branch": None,
        "layer": 3,
        "status": "published",
        "positions": 25_088,
        "neurons": neurons,
        "window_length": 256,
        "tokenizer_id": "novella-8192",
        "frequency_source_id": "novella-training.npy-7f21c0aa",
        "frequency_source": "novella-training.npy",
        "corpus": "c4-sample",
        "corpus_hash": "ab" * 32,
        "model_hash": f"{abs(hash(revision)) % 16**8:064x}",
        "ablation": "mean",
        "seed": seed,
        "dtype": "float32",
        "device": "cpu",
        "tolerance": 1e-6,
        "exact_pairs": 31_337,
        "self_check_error": 0.31,
        "structural_check_error": 0.05,
        "quantisation": None,
        "self_check_pairs": 512,
        "created_at": "2026-11-21T09:00:00+00:00",
        "seconds": 41.5,
        "code_version": "0.1.0",
        "options": json.dumps(options),
        "packages": json.dumps({"torch": "2.13.0", "duckdb": "2.0.0"}),
        "warnings": ["the frequency source is small: 35 % of its types occur once"],
    }


def _tokens(run_id: str, neurons: int, rng: np.random.Generator) -> pl.DataFrame:
    words = [f"{' ' * (i % 2)}{''.join(rng.choice(list('etaoinshrdlu'), size=2 + i % 7))}" for i in range(800)]
    vocabulary = pl.Series(HOSTILE + words)
    count = neurons * 10
    picked = rng.integers(0, len(vocabulary), size=count)
    picked[: len(HOSTILE)] = np.arange(len(HOSTILE))
    return pl.DataFrame(
        {
            "run_id": [run_id] * count,
            "neuron": np.repeat(np.arange(neurons), 10),
            "direction": (["up"] * 5 + ["down"] * 5) * neurons,
            "rank": np.tile(np.tile(np.arange(1, 6), 2), neurons),
            "token_id": picked,
            "text": vocabulary.gather(picked),
            "logit": rng.normal(size=count),
        }
    )


def _group(
    run_id: str, preset: str, group: str, score: np.ndarray, grown: float, rng: np.random.Generator
) -> dict[str, pl.DataFrame]:
    """One token group: a power law with a raised head (rare tokens, late in training) and a steeper tail."""
    neurons = len(score)
    order = np.argsort(-score, kind="stable")
    log_rank = np.log(np.arange(1, neurons + 1))
    slope = 0.25 + 0.75 * grown + (0.1 if group == "common" else 0.0)
    raised = 0.9 * grown * (np.arange(neurons) < 14) if group == "rare" else 0.0
    tail = -(np.maximum(log_rank - np.log(neurons / 3), 0) ** 2) * 2
    noise = rng.normal(scale=0.04, size=neurons)
    log_influence = np.sort(-6 + 2.5 * grown - slope * log_rank + raised + tail + noise)[::-1]
    first, last = max(2, neurons // 50), max(12, neurons // 4)
    minus_kappa, beta = np.polyfit(log_rank[first - 1 : last], log_influence[first - 1 : last], 1)
    line = minus_kappa * log_rank + beta
    within = slice(first - 1, last)
    residual = np.var((log_influence - line)[within]) / np.var(log_influence[within])
    deviation = log_influence - line
    ranks = np.arange(1, neurons + 1)
    sign = rng.choice([-1.0, 1.0], size=neurons)
    key = {"run_id": [run_id] * neurons, "preset": [preset] * neurons, "token_group": [group] * neurons}
    influence = np.exp(log_influence)
    return {
        "influence": pl.DataFrame(
            key
            | {"neuron": order, "influence": influence, "mean_delta_loss": 0.3 * sign * influence}
            | {"positions": [1_934 if group == "rare" else 23_002] * neurons, "rank": ranks}
            | {"role": np.where(sign > 0, "boost", "suppress")}
        ),
        "deviations": pl.DataFrame(
            key
            | {"neuron": order, "rank": ranks, "deviation": deviation, "local_slope": np.gradient(line)}
            | {"regime": np.where(ranks < first, "plateau", np.where(ranks <= last, "power law", "rapid decay"))}
        ),
        "fits": pl.DataFrame(
            {"run_id": [run_id], "preset": [preset], "token_group": [group], "kappa": [-minus_kappa], "beta": [beta]}
            | {"r2": [1 - residual], "first_rank": [first], "last_rank": [last], "reason": [None]},
            schema_overrides={"reason": pl.String},
        ),
    }


def _intervals(fits: pl.DataFrame) -> pl.DataFrame:
    """Rows of `influence_interval` for the whole curve and for a neuron."""
    key = ["run_id", "preset", "token_group"]
    widths = {"kappa": (0.05, 0.06), "share_within_0_1": (0.02, 0.03), "neurons_above_0_5": (2.0, 3.0)}
    middle = {"kappa": pl.col("kappa"), "share_within_0_1": pl.lit(0.4), "neurons_above_0_5": pl.lit(14.0)}
    curve = [
        fits.select(*key, quantity=pl.lit(name), low=middle[name] - low, high=middle[name] + high)
        for name, (low, high) in widths.items()
    ]
    neuron = fits.select(*key, quantity=pl.lit("kappa"), low=pl.lit(-1.0), high=pl.lit(9.0), neuron=pl.lit(3))
    return pl.concat([neuron, *curve], how="diagonal")


def _signs(influence: pl.DataFrame) -> pl.DataFrame:
    """Rows of `neuron_influence` with the columns of `neuron_sign`: every third neuron by rank is mixed."""
    mixed = pl.col("rank") % 3 == 0
    half = pl.col("mean_delta_loss").abs() * pl.when(mixed).then(2.0).otherwise(0.5)
    return influence.with_columns(
        settled_role=pl.when(mixed).then(pl.lit("mixed")).otherwise("role"),
        mean_delta_low=pl.col("mean_delta_loss") - half,
        mean_delta_high=pl.col("mean_delta_loss") + half,
    )


def _decisions(fits: pl.DataFrame) -> pl.DataFrame:
    """Rows of `regime_decision`: a plateau on rare tokens only."""
    rare = pl.col("token_group") == "rare"
    return fits.select(
        "run_id",
        "preset",
        "token_group",
        decision=pl.when(rare).then(pl.lit("present")).otherwise(pl.lit("undecided")),
        p_value=pl.when(rare).then(0.002).otherwise(0.21),
        power=pl.when(rare).then(0.9).otherwise(0.31),
        break_rank=pl.when(rare).then(14).otherwise(9),
        break_low=pl.when(rare).then(12).otherwise(5),
        break_high=pl.when(rare).then(15).otherwise(38),
        break_determined=rare,
        step=pl.when(rare).then(0.83).otherwise(0.07),
        step_low=pl.when(rare).then(0.71).otherwise(-0.2),
        step_high=pl.when(rare).then(0.94).otherwise(0.4),
        head=pl.when(rare).then(pl.lit("shelf")),
    )


def _differences(fits: pl.DataFrame) -> pl.DataFrame:
    """Rows of `plateau_difference`."""
    return fits.select("run_id", "preset").unique(maintain_order=True).with_columns(
        step=0.76, step_low=0.31, step_high=1.12, kappa=-0.1, kappa_low=-0.15, kappa_high=-0.06, size=5, size_low=-20.0,
        size_high=9.0, determined=False, first=14, shared=11, reason=pl.lit(None, dtype=pl.String),
    )  # fmt: skip


def _quality(run_ids: list[str]) -> pl.DataFrame:
    checks = [
        ("every neuron × position exactly once", True, "25,690,112", "25,690,112"),
        ("delta_loss is finite", True, "0 not finite", "0"),
        ("ranks are a permutation", True, "0 repeated", "0"),
        ("frequencies sum to 1", False, "0.98", "1 ± 0.001"),
    ]
    rows = [(run_id, *check) for run_id in run_ids for check in checks]
    return pl.DataFrame(rows, schema=["run_id", "check_name", "success", "observed", "expected"], orient="row")

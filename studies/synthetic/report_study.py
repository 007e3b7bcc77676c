"""What `analyze` and the warehouse add to a report, made up for tests: values, training, slopes, sensitivity, cards."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.across_runs.comparison import COACTIVATION
from rare_tokens.analyses.report import ReportInputs, card_neurons
from studies.synthetic.report_inputs import HOSTILE

CARDS = 3


def studied(inputs: ReportInputs, seed: int = 0) -> ReportInputs:
    """`inputs` with every frame that a report can show."""
    rng = np.random.default_rng(seed)
    runs = inputs.runs["run_id"].to_list()
    last = runs[-1]
    neurons = card_neurons(inputs.runs, inputs.influence, inputs.specificity, total=CARDS)[last]
    return replace(
        inputs,
        values=values(runs),
        neuron_groups=_neuron_groups(runs),
        specificity=_specificity(inputs),
        of_figures={"emergence": _emergence(runs), "slopes": _slopes(inputs), "sensitivity": _sensitivity(runs)}
        | {"references": references(last, {runs[0]: "zero"}), "attribution": _attribution(runs)}
        | {"layers": layer_profile({3: last, 1: runs[0]})},
        contexts=_contexts(last, neurons),
        targets=_targets(last, neurons, rng),
        activations=_activations(last, neurons),
        passages=_passages(last, neurons, rng),
        moments=_moments(last, neurons),
        neighbours=_neighbours(last, neurons),
        coactivation=_coactivation(runs),
    )


def _neuron_groups(runs: list[str]) -> pl.DataFrame:
    """`neuron_group_summary` of some runs: the papers' groups, one of them not formed, and a settled one."""
    key = {"preset": "es", "token_group": "rare", "k": 50}
    rows = []
    for run_id in runs:
        boost = {"members": 50, "settled_boost": 41, "settled_suppress": 0, "mixed": 9}
        settled = {"members": 50, "settled_boost": 50, "settled_suppress": 0, "mixed": 0}
        rows += [
            key | {"run_id": run_id, "group_name": "boost"} | boost,
            key | {"run_id": run_id, "group_name": "suppress", "members": 0, "reason": "fewer than 50 suppress"},
            key | {"run_id": run_id, "group_name": "boost_settled"} | settled,
        ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _specificity(inputs: ReportInputs) -> pl.DataFrame:
    """`neuron_specificity` of every run and preset: the first three neurons for rare, the fourth for common tokens."""
    rare = inputs.influence.filter(pl.col("token_group") == "rare", pl.col("rank") <= 6)
    ratio = (
        pl.when(pl.col("rank") <= 3).then(2.0 - 0.1 * pl.col("rank")).when(pl.col("rank") == 4).then(0.6).otherwise(1)
    )
    parts = [
        rare.select("run_id", "preset", "neuron", "rank", ratio=ratio, matching=pl.lit(matching))
        for matching in ("loss", "loss+word")
    ]
    small = pl.col("rank") <= 4
    return pl.concat(parts).with_columns(
        ratio_low=pl.col("ratio") - 0.2,
        ratio_high=pl.col("ratio") + 0.3,
        p_value=pl.when(small).then(0.0005).otherwise(0.4),
        adjusted_p_value=pl.when(small).then(0.004).otherwise(1.0),
        specific_to=pl.when(pl.col("rank") <= 3).then(pl.lit("rare")).when(small).then(pl.lit("common")),
        rare_positions=734,
        common_positions=20_145,
        reason=pl.lit(None, dtype=pl.String),
    )


def value(run_id: str, group: str, measured: float | None, **changes: Any) -> dict[str, Any]:
    """A row of `measured_value`: by default from ES table 1, with an interval of 0.01 each way."""
    ends = {} if measured is None else {"low": measured - 0.01, "high": measured + 0.01}
    return (
        {"run_id": run_id, "preset": "es", "token_group": "rare", "paper": "ES", "place": "table 1", "k": 50}
        | {"group_name": group, "quantity": "activation_correlation", "definition": "", "measured_group": group}
        | {"value": measured, "low": None, "high": None, "spread": None, "reason": None}
        | {"random_mean": 0.01, "random_sd": 0.002, "p_value": 0.03}
        | ends
        | changes
    )


def values(runs: list[str]) -> pl.DataFrame:
    """`measured_value` of some runs, with every kind of row that the report shows."""
    rows = []
    for run_id in runs:
        rows += [
            value(run_id, "boost", 0.036),
            value(run_id, "suppress", None, reason="fewer than 50 neurons suppress"),
            value(run_id, "random", 0.012, low=None, high=None, spread=0.003),
            value(run_id, "boost", 1.5, place="table 4", quantity="hill_alpha", definition="mid", low=0.9, high=2.1),
            value(run_id, "boost", 0.1, place="table 3", quantity="weight_cosine_similarity", low=None, high=None),
            value(
                run_id, "plateau_excitatory", 0.4, paper="NC", preset="nc", quantity="signed_modularity",
                definition="top 1 %", measured_group="top_boost", k=5, low=0.1, high=0.9,
            ),
        ]  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def _emergence(runs: list[str]) -> pl.DataFrame:
    rows = [
        {"run_id": run_id, "preset": "es", "token_group": "rare", "training_step": step, "group_name": group}
        | {"chosen_at": "last", "quantity": rule, "rank": None, "value": 3.0 - step / 10, "low": 2.0, "high": 4.0}
        for step, run_id in enumerate(runs)
        for group in ("boost", "suppress", "control")
        for rule in ("alpha_fix_finger", "alpha_mid")
    ]
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"rank": pl.Int64})


def _slopes(inputs: ReportInputs) -> pl.DataFrame:
    key = ["run_id", "preset", "token_group", "rank"]
    steeper = pl.col("run_id").rank("dense").cast(pl.Float64)  # at each checkpoint
    slope = -pl.col("rank").cast(pl.Float64).log() / 5 * steeper
    return inputs.deviations.select(*key).with_columns(local_slope=slope, second_derivative=slope / 3)


def _sensitivity(runs: list[str]) -> pl.DataFrame:
    rows = [
        {"run_id": run_id, "preset": "es", "token_group": group, "percentile": float(percentile), "positions": 100}
        | {"kappa": 1.5 - percentile / 100, "decision": "present" if percentile > 30 else "absent", "p_value": 0.2}
        | {"top_overlap": 0.9, "rank_correlation": 0.95}
        for run_id in runs
        for group in ("rare", "common")
        for percentile in range(5, 51, 5)
    ]
    return pl.DataFrame(rows)


def references(run_id: str, others: dict[str, str]) -> pl.DataFrame:
    """`reference_agreement` of a run of mean ablation and `others`, whose ablations are given, two by two."""
    every = [(run_id, "mean"), *others.items()]
    wide = {"rank_correlation": 0.9, "shared_10": 8, "shared_50": 41, "first": 12, "shared_first": None}
    wide |= {"rank_correlation_low": 0.85, "rank_correlation_high": 0.92, "shared_50_low": 39, "shared_50_high": 43}
    own = {"kappa": 0.8, "kappa_low": 0.7, "kappa_high": 0.9, "decision": "present", "p_value": 0.002, "step": 0.7}
    own |= {"break_rank": 12, "break_low": 11, "break_high": 13, "break_determined": True}
    other = own | {"kappa": None, "decision": "undecided", "break_rank": 9, "break_determined": False}
    rows = [
        {"run_id": one, "other_run_id": second, "preset": "es", "token_group": group, "ablation": kind}
        | {"other_ablation": other_kind, "reason": None}
        | wide
        | own
        | {f"other_{name}": value for name, value in other.items()}
        for place, (one, kind) in enumerate(every)
        for second, other_kind in every[place + 1 :]
        for group in ("common", "rare")
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def layer_profile(runs: dict[int, str]) -> pl.DataFrame:
    """`layer_profile` of runs by their layer, in no order: the deeper, the more of a plateau."""
    last = runs[max(runs)]
    rows = [
        {"run_id": run_id, "preset": "es", "token_group": group, "layer": layer, "layers": len(runs)}
        | {"last_run_id": last, "edit_scope": "window", "neurons": 64, "positions": 100, "break_rank": 3 + layer}
        | {"mean_influence": 0.01 / layer, "largest_influence": 0.1, "head_share": 0.25, "p_value": 0.002}
        | {"kappa": None if group == "rare" and layer == 1 else 0.5 + layer / 10, "kappa_low": 0.5, "kappa_high": 0.9}
        | {"step": layer / 4, "step_low": layer / 5, "step_high": layer / 3}
        | {"decision": "present" if layer == max(runs) else None, "reason": None}
        for layer, run_id in runs.items()
        for group in ("common", "rare")
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _attribution(runs: list[str]) -> pl.DataFrame:
    """`attribution_agreement`: a run without estimates, and one whose estimates are better for small effects."""
    key = {"preset": "es", "token_group": "rare"}
    whole = {"run_id": runs[-1], "decile": None, "rank_correlation": 0.97, "shared_10": 9, "shared_50": 44}
    whole |= {"shared_50_low": 42, "shared_50_high": 46, "wrong_sign_share": 0.031, "relative_error": 0.2}
    rows = [key | whole, key | {"run_id": runs[0], "reason": "not asked for with --effects: attribution"}]
    for decile in range(1, 11):
        value = {"relative_error": decile / 100, "relative_error_low": decile / 110, "relative_error_high": decile / 90}
        rows.append(key | {"run_id": runs[-1], "decile": decile, "pairs": 640, "error_ratio": 0.1} | value)
    columns = ("smallest_delta", "largest_delta")
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(**dict.fromkeys(columns, pl.lit(0.1)))


def _contexts(run_id: str, neurons: list[int]) -> pl.DataFrame:
    texts = [text[:2000] for text in HOSTILE]
    rows = [
        {"run_id": run_id, "neuron": neuron, "direction": side, "place": place, "context": texts[place] + " and then"}
        | {"target": texts[-place], "loss": 3.0, "delta_loss": sign * (1.0 - place / 10), "activation": 1.5}
        | {"token_group": "rare" if place % 2 else None}
        for neuron in neurons
        for side, sign in (("helps", 1), ("hurts", -1))
        for place in range(1, 6)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _targets(run_id: str, neurons: list[int], rng: np.random.Generator) -> pl.DataFrame:
    rows = [
        {"run_id": run_id, "neuron": neuron, "text": text[:2000], "positions": 7, "mean_delta_loss": change}
        for neuron in neurons
        for text, change in zip(HOSTILE, rng.normal(size=len(HOSTILE)), strict=True)
    ]
    return pl.DataFrame(rows)


def _activations(run_id: str, neurons: list[int]) -> pl.DataFrame:
    rows = [
        {"run_id": run_id, "neuron": neuron, "bin": place, "low": place / 10 - 1, "high": place / 10 - 0.9}
        | {"positions": 1000 // place, "rare": 100 // place}
        for neuron in neurons
        for place in range(1, 41)
    ]
    return pl.DataFrame(rows)


def _passages(run_id: str, neurons: list[int], rng: np.random.Generator) -> pl.DataFrame:
    """`neuron_top_activation`: two places of two samples, of hostile tokens; the first was not predicted."""
    texts = [text[:2000] for text in HOSTILE]
    rows = [
        {"run_id": run_id, "neuron": neuron, "sample": sample, "place": place, "position_id": place, "at": 5}
        | {"token_group": "rare", "quantile": quantile, "activation": 2.5, "delta_loss": -0.25, "tokens": texts}
        | {"activations": rng.normal(size=len(texts)).tolist()}
        | {"delta_losses": [None, *rng.normal(size=len(texts) - 1).tolist()]}
        for neuron in neurons
        for sample, quantile in (("largest", 1.0), ("middle", 0.5))
        for place in (1, 2)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _moments(run_id: str, neurons: list[int]) -> pl.DataFrame:
    rows = [
        {"run_id": run_id, "neuron": neuron, "quantity": quantity, "token_group": group, "positions": 900}
        | {"mean": 0.1, "sd": 0.5, "skew": 2.5, "kurtosis": 9.0, "smallest": -1.0, "largest": 3.0}
        for neuron in neurons
        for quantity in ("activation", "delta_loss")
        for group in ("all", "rare", "common")
    ]
    return pl.DataFrame(rows)


def _neighbours(run_id: str, neurons: list[int]) -> pl.DataFrame:
    """Of each neuron, the first with a card and one without."""
    rows = [
        {"run_id": run_id, "neuron": neuron, "kind": kind, "place": place, "other_neuron": other, "similarity": 0.5}
        for neuron in neurons
        for kind in ("weight", "activation")
        for place, other in enumerate((neurons[0], 1023), 1)
    ]
    return pl.DataFrame(rows)


def _coactivation(runs: list[str]) -> pl.DataFrame:
    pair = {"run_id": runs[0], "other_run_id": runs[-1], "preset": "es", "positions": 900}
    rows = [
        pair | {"group_name": group, "correlation": 0.25, "low": 0.2, "high": 0.3}
        | {"random_mean": 0.01, "random_sd": 0.02, "p_value": 0.05}
        for group in ("boost", "suppress")
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=COACTIVATION)

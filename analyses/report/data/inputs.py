"""What a report is made from: a few frames, one row per … as in the warehouse's relations of the same names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import polars.selectors as cs

_KEY = {"run_id": pl.String, "preset": pl.String, "token_group": pl.String}
_NEURON = {"run_id": pl.String, "neuron": pl.Int64}

# Columns without which a frame cannot be read, and columns that are filled with NULL where the caller has none.
_REQUIRED: dict[str, Mapping[str, type[pl.DataType]]] = {
    "runs": {
        "run_id": pl.String,
        "model": pl.String,
        "revision": pl.String,
        "layer": pl.Int64,
        "status": pl.String,
        "positions": pl.Int64,
        "neurons": pl.Int64,
        "corpus": pl.String,
        "seed": pl.Int64,
    },
    "influence": _KEY
    | {"neuron": pl.Int64, "influence": pl.Float64, "mean_delta_loss": pl.Float64, "positions": pl.Int64}
    | {"rank": pl.Int64, "role": pl.String},
    "fits": _KEY
    | {"kappa": pl.Float64, "beta": pl.Float64, "r2": pl.Float64, "first_rank": pl.Int64, "last_rank": pl.Int64},
    "deviations": _KEY | {"neuron": pl.Int64, "rank": pl.Int64, "deviation": pl.Float64, "regime": pl.String},
    "tokens": {
        "run_id": pl.String,
        "neuron": pl.Int64,
        "direction": pl.String,
        "rank": pl.Int64,
        "text": pl.String,
    },
    "published": {
        "paper": pl.String,
        "place": pl.String,
        "model": pl.String,
        "group_name": pl.String,
        "quantity": pl.String,
        "relation": pl.String,
        "value": pl.Float64,
        "value_to": pl.Float64,
        "plus_minus": pl.Float64,
    },
    "intervals": _KEY | {"quantity": pl.String, "low": pl.Float64, "high": pl.Float64},
    "decisions": _KEY | {"decision": pl.String, "p_value": pl.Float64},
    "quality": {"run_id": pl.String, "check_name": pl.String, "success": pl.Boolean},
    "values": _KEY
    | {"paper": pl.String, "place": pl.String, "group_name": pl.String, "quantity": pl.String, "definition": pl.String}
    | {"value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "spread": pl.Float64},
    "emergence": _KEY
    | {"training_step": pl.Int64, "group_name": pl.String, "chosen_at": pl.String, "quantity": pl.String}
    | {"rank": pl.Int64, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64},
    "slopes": _KEY | {"rank": pl.Int64, "local_slope": pl.Float64, "second_derivative": pl.Float64},
    "sensitivity": _KEY
    | {"percentile": pl.Float64, "positions": pl.Int64, "kappa": pl.Float64, "decision": pl.String}
    | {"p_value": pl.Float64, "top_overlap": pl.Float64, "rank_correlation": pl.Float64},
    "contexts": _NEURON
    | {"direction": pl.String, "place": pl.Int64, "context": pl.String, "target": pl.String}
    | {"loss": pl.Float64, "delta_loss": pl.Float64, "activation": pl.Float64, "token_group": pl.String},
    "targets": _NEURON | {"text": pl.String, "positions": pl.Int64, "mean_delta_loss": pl.Float64},
    "activations": _NEURON
    | {"bin": pl.Int64, "low": pl.Float64, "high": pl.Float64, "positions": pl.Int64, "rare": pl.Int64},
    "coactivation": {"run_id": pl.String, "other_run_id": pl.String, "preset": pl.String, "group_name": pl.String}
    | {"positions": pl.Int64, "correlation": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    | {"random_mean": pl.Float64, "random_sd": pl.Float64, "p_value": pl.Float64},
}
_OPTIONAL: dict[str, Mapping[str, type[pl.DataType]]] = {
    "runs": {
        "window_length": pl.Int64,
        "tokenizer_id": pl.String,
        "frequency_source_id": pl.String,
        "frequency_source": pl.String,
        "corpus_hash": pl.String,
        "model_hash": pl.String,
        "ablation": pl.String,
        "dtype": pl.String,
        "device": pl.String,
        "tolerance": pl.Float64,
        "exact_pairs": pl.Int64,
        "self_check_error": pl.Float64,
        "structural_check_error": pl.Float64,
        "self_check_pairs": pl.Int64,
        "created_at": pl.String,
        "seconds": pl.Float64,
        "code_version": pl.String,
        "options": pl.String,
        "packages": pl.String,
        "warnings": pl.String,
        "status_reason": pl.String,
    },
    "fits": {"reason": pl.String},
    "deviations": {"local_slope": pl.Float64},
    "intervals": {"neuron": pl.Int64},
    "decisions": {
        "power": pl.Float64,
        "break_rank": pl.Int64,
        "break_low": pl.Int64,
        "break_high": pl.Int64,
        "step": pl.Float64,
        "slope_break_log_rank": pl.Float64,
        "slope_break_low": pl.Float64,
        "slope_break_high": pl.Float64,
        "slope_break_p_value": pl.Float64,
        "reason": pl.String,
    },
    "quality": {"suite": pl.String, "observed": pl.String, "expected": pl.String, "detail": pl.String},
    "values": {
        "measured_group": pl.String,
        "k": pl.Int64,
        "random_mean": pl.Float64,
        "random_sd": pl.Float64,
        "p_value": pl.Float64,
        "reason": pl.String,
    },
    "sensitivity": {"power": pl.Float64, "distinct_threshold": pl.Boolean, "reason": pl.String},
}


def empty(frame: str) -> pl.DataFrame:
    """A frame of `ReportInputs` without rows."""
    return pl.DataFrame(schema={**_REQUIRED[frame], **_OPTIONAL.get(frame, {})})


@dataclass(frozen=True)
class ReportInputs:
    """The frames of one report, spelled as in DESIGN 4; every other column is left out of the page.

    `runs`: one row per run (`dim_run`), in any order; `options` and `packages` are JSON texts, `warnings` is a list.
    `influence`, `fits`, `deviations`: `neuron_influence`, `power_law_fit`, `neuron_deviation`; a fit that could not be
    made has NULL numbers and its `reason`. `tokens`: `neuron_token` with the text of each token. `published`: what
    papers print (`analyses.reference.published_values`). `intervals` and `decisions`: `influence_interval` and
    `regime_decision`, where `analyze` made them. `quality`: one row per run and check. `values`, `emergence`, `slopes`,
    `sensitivity`: `measured_value`, `emergence`, `influence_slope`, `threshold_sensitivity`. `contexts`, `targets`,
    `activations`: `neuron_context`, `neuron_target`, `neuron_activation` of the neurons that have a card
    (`analyses.report.data.cards.card_neurons`). `coactivation`: `analyses.across_runs.comparison`.
    """

    runs: pl.DataFrame
    influence: pl.DataFrame
    fits: pl.DataFrame
    deviations: pl.DataFrame
    tokens: pl.DataFrame = field(default_factory=lambda: empty("tokens"))
    published: pl.DataFrame = field(default_factory=lambda: empty("published"))
    intervals: pl.DataFrame = field(default_factory=lambda: empty("intervals"))
    decisions: pl.DataFrame = field(default_factory=lambda: empty("decisions"))
    quality: pl.DataFrame = field(default_factory=lambda: empty("quality"))
    values: pl.DataFrame = field(default_factory=lambda: empty("values"))
    emergence: pl.DataFrame = field(default_factory=lambda: empty("emergence"))
    slopes: pl.DataFrame = field(default_factory=lambda: empty("slopes"))
    sensitivity: pl.DataFrame = field(default_factory=lambda: empty("sensitivity"))
    contexts: pl.DataFrame = field(default_factory=lambda: empty("contexts"))
    targets: pl.DataFrame = field(default_factory=lambda: empty("targets"))
    activations: pl.DataFrame = field(default_factory=lambda: empty("activations"))
    coactivation: pl.DataFrame = field(default_factory=lambda: empty("coactivation"))
    command: str = ""  # that makes this report again
    created_at: str = ""  # ISO 8601, UTC

    def conformed(self) -> "ReportInputs":
        """The same inputs with exactly the columns and types that the report reads.

        Raises ValueError where a frame lacks a column.
        """
        frames: dict[str, Any] = {name: _conform(name, getattr(self, name)) for name in _REQUIRED}
        return replace(self, **frames)


def _conform(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    missing = sorted(set(_REQUIRED[name]) - set(frame.columns))
    if missing:
        raise ValueError(f"report inputs: {name} lacks {', '.join(missing)}")
    columns = {**_REQUIRED[name], **_OPTIONAL.get(name, {})}
    conformed = frame.select(_column(frame.schema.get(column), column, kind) for column, kind in columns.items())
    return conformed.with_columns(pl.when(cs.float().is_finite()).then(cs.float()))


def _column(found: pl.DataType | None, name: str, kind: type[pl.DataType]) -> pl.Expr:
    """A column as `kind`: NULL where the frame has none, and text where it holds lists (as JSON) or times."""
    if found is None:
        return pl.lit(None, dtype=kind).alias(name)
    if isinstance(found, pl.List) and kind == pl.String:
        return pl.col(name).map_elements(lambda items: json.dumps(items.to_list()), return_dtype=pl.String)
    if isinstance(found, pl.Datetime) and kind == pl.String:
        return pl.col(name).dt.strftime("%Y-%m-%d %H:%M:%S")
    return pl.col(name).cast(kind)

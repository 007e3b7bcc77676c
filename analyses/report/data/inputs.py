"""What a report is made from: frames, most of them public relations of the warehouse, of the runs of the report."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import polars as pl
import polars.selectors as cs

Columns = Mapping[str, type[pl.DataType] | pl.DataType]

GROUP: dict[str, type[pl.DataType] | pl.DataType] = {"run_id": pl.String, "preset": pl.String, "token_group": pl.String}
_NEURON: dict[str, type[pl.DataType] | pl.DataType] = {"run_id": pl.String, "neuron": pl.Int64}


@dataclass(frozen=True)
class Input:
    """A frame of a report; other columns of its relation are left out of the page.

    Attributes:
        name: its name in the report, and of its file next to the page.
        relation: the public relation behind it, read whole for the report's runs; None: it is read in its own way
            (`commands.report`, `warehouse.report_inputs`).
        columns: columns that it must have.
        optional: columns filled with NULL if the frame lacks them.
        beside: whether it is written next to the page as it is.
    """

    name: str
    relation: str | None
    columns: Columns
    optional: Columns = field(default_factory=dict)
    beside: bool = False

    def empty(self) -> pl.DataFrame:
        """The frame without rows."""
        return pl.DataFrame(schema={**self.columns, **self.optional})

    def conformed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with exactly these columns and types.

        Raises:
            ValueError: it lacks a column.
        """
        missing = sorted(set(self.columns) - set(frame.columns))
        if missing:
            raise ValueError(f"report inputs: {self.name} lacks {', '.join(missing)}")
        columns = {**self.columns, **self.optional}
        selected = frame.select(_column(frame.schema.get(column), column, kind) for column, kind in columns.items())
        return selected.with_columns(pl.when(cs.float().is_finite()).then(cs.float()))


_RUNS = Input(
    "runs",
    None,
    {
        "run_id": pl.String,
        "model": pl.String,
        "revision": pl.String,
        "training_stage": pl.Int64,
        "training_step": pl.Int64,
        "training_branch": pl.String,
        "layer": pl.Int64,
        "status": pl.String,
        "positions": pl.Int64,
        "neurons": pl.Int64,
        "corpus": pl.String,
        "seed": pl.Int64,
    },
    {
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
        "quantisation": pl.String,
        "self_check_pairs": pl.Int64,
        "created_at": pl.String,
        "seconds": pl.Float64,
        "code_version": pl.String,
        "options": pl.String,
        "packages": pl.String,
        "warnings": pl.String,
        "status_reason": pl.String,
    },
)
_DECISIONS = Input(
    "decisions",
    "regime_decision",
    GROUP | {"decision": pl.String, "p_value": pl.Float64},
    {
        "power": pl.Float64,
        "break_rank": pl.Int64,
        "break_low": pl.Int64,
        "break_high": pl.Int64,
        "break_determined": pl.Boolean,
        "step": pl.Float64,
        "step_low": pl.Float64,
        "step_high": pl.Float64,
        "head": pl.String,
        "head_slope": pl.Float64,
        "head_slope_low": pl.Float64,
        "head_slope_high": pl.Float64,
        "slope_break_log_rank": pl.Float64,
        "slope_break_low": pl.Float64,
        "slope_break_high": pl.Float64,
        "slope_break_p_value": pl.Float64,
        "reason": pl.String,
    },
)
_VALUES = Input(
    "values",
    None,
    GROUP
    | {"paper": pl.String, "place": pl.String, "group_name": pl.String, "quantity": pl.String, "definition": pl.String}
    | {"value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "spread": pl.Float64},
    {"measured_group": pl.String, "k": pl.Int64}
    | {"random_mean": pl.Float64, "random_sd": pl.Float64, "p_value": pl.Float64, "reason": pl.String}
    | {"p_alone": pl.Float64, "tests": pl.Int64, "p_reason": pl.String},  # p before Holm, over how many tests, why none
)

# Every frame that the page itself uses; those that only a figure draws are defined with the figure.
INPUTS = (
    _RUNS,
    Input(
        "influence",
        None,
        GROUP
        | {"neuron": pl.Int64, "influence": pl.Float64, "mean_delta_loss": pl.Float64, "positions": pl.Int64}
        | {"rank": pl.Int64, "role": pl.String},
        {"settled_role": pl.String, "mean_delta_low": pl.Float64, "mean_delta_high": pl.Float64},
    ),
    Input(
        "fits",
        "power_law_fit",
        GROUP
        | {"kappa": pl.Float64, "beta": pl.Float64, "r2": pl.Float64, "first_rank": pl.Int64, "last_rank": pl.Int64},
        {"straight_share": pl.Float64, "tail": pl.Float64, "reason": pl.String},
    ),
    Input(
        "deviations",
        "neuron_deviation",
        GROUP | {"neuron": pl.Int64, "rank": pl.Int64, "deviation": pl.Float64, "regime": pl.String},
        {"local_slope": pl.Float64},
    ),
    Input("tokens", None, _NEURON | {"direction": pl.String, "rank": pl.Int64, "text": pl.String}),
    Input(
        "published",
        None,
        dict.fromkeys(("paper", "place", "model", "group_name", "quantity", "relation"), pl.String)
        | dict.fromkeys(("value", "value_to", "plus_minus"), pl.Float64),
    ),
    Input(
        "intervals",
        None,
        GROUP | {"quantity": pl.String, "low": pl.Float64, "high": pl.Float64},
        {"neuron": pl.Int64, "determined": pl.Boolean},
    ),
    _DECISIONS,
    Input(
        "neuron_groups",
        None,
        GROUP | {"group_name": pl.String, "k": pl.Int64, "members": pl.Int64, "reason": pl.String},
        dict.fromkeys(("settled_boost", "settled_suppress", "mixed"), pl.Int64),
        beside=True,
    ),
    Input(
        "differences",
        "plateau_difference",
        {"run_id": pl.String, "preset": pl.String}
        | dict.fromkeys(("step", "step_low", "step_high", "kappa", "kappa_low", "kappa_high"), pl.Float64)
        | {"size": pl.Int64, "size_low": pl.Float64, "size_high": pl.Float64, "determined": pl.Boolean}
        | {"first": pl.Int64, "shared": pl.Int64, "reason": pl.String},
    ),
    Input(
        "specificity",
        "neuron_specificity",
        {"run_id": pl.String, "preset": pl.String, "matching": pl.String, "neuron": pl.Int64}
        | dict.fromkeys(("ratio", "ratio_low", "ratio_high", "p_value", "adjusted_p_value"), pl.Float64)
        | {"specific_to": pl.String, "rare_positions": pl.Int64, "common_positions": pl.Int64, "reason": pl.String},
        {"detectable_ratio": pl.Float64},
        beside=True,
    ),
    Input(
        "overlaps",
        "ranking_overlap",
        dict.fromkeys(
            (
                "run_id",
                "preset",
                "token_group",
                "ranking",
                "other_run_id",
                "other_preset",
                "other_token_group",
                "other_ranking",
            ),
            pl.String,
        )
        | {"shared_10": pl.Int64, "shared_50": pl.Int64, "rank_correlation": pl.Float64},
        {
            f"{name}_{end}": pl.Float64
            for name in ("shared_10", "shared_50", "rank_correlation")
            for end in ("low", "high")
        }
        | dict.fromkeys(("expected_10", "p_10", "expected_50", "p_50"), pl.Float64)
        | {"reason": pl.String},
        beside=True,
    ),
    Input(
        "matches",
        "plateau_match",
        dict.fromkeys(("run_id", "other_run_id", "preset", "token_group"), pl.String)
        | dict.fromkeys(("first", "other_first", "matched"), pl.Int64)
        | dict.fromkeys(("expected", "p_value", "head_correlation", "layer_correlation"), pl.Float64)
        | {"reason": pl.String},
        beside=True,
    ),
    Input(
        "warnings",
        "run_warning",
        dict.fromkeys(("run_id", "kind", "preset", "message"), pl.String),
        {"observed": pl.Float64, "threshold": pl.Float64},
        beside=True,
    ),
    Input(
        "quality",
        None,
        {"run_id": pl.String, "check_name": pl.String, "success": pl.Boolean},
        dict.fromkeys(("suite", "observed", "expected", "detail"), pl.String),
    ),
    _VALUES,
    Input(
        "contexts",
        None,
        _NEURON
        | {"direction": pl.String, "place": pl.Int64, "context": pl.String, "target": pl.String}
        | {"loss": pl.Float64, "delta_loss": pl.Float64, "activation": pl.Float64, "token_group": pl.String},
        beside=True,
    ),
    Input(
        "targets",
        None,
        _NEURON | {"text": pl.String, "positions": pl.Int64, "mean_delta_loss": pl.Float64},
        beside=True,
    ),
    Input(
        "activations",
        None,
        _NEURON | {"bin": pl.Int64, "low": pl.Float64, "high": pl.Float64, "positions": pl.Int64, "rare": pl.Int64},
        beside=True,
    ),
    Input(
        "passages",
        None,
        _NEURON
        | {"sample": pl.String, "place": pl.Int64, "position_id": pl.Int64, "at": pl.Int64, "token_group": pl.String}
        | dict.fromkeys(("quantile", "activation", "delta_loss"), pl.Float64)
        | {"tokens": pl.List(pl.String)}
        | dict.fromkeys(("activations", "delta_losses"), pl.List(pl.Float64)),
    ),
    Input(
        "moments",
        None,
        _NEURON
        | {"quantity": pl.String, "token_group": pl.String, "positions": pl.Int64}
        | dict.fromkeys(("mean", "sd", "skew", "kurtosis", "smallest", "largest"), pl.Float64),
        beside=True,
    ),
    Input(
        "neighbours",
        None,
        _NEURON | {"kind": pl.String, "place": pl.Int64, "other_neuron": pl.Int64, "similarity": pl.Float64},
        beside=True,
    ),
    Input(
        "coactivation",
        None,
        dict.fromkeys(("run_id", "other_run_id", "preset", "group_name"), pl.String)
        | {"positions": pl.Int64, "correlation": pl.Float64, "low": pl.Float64, "high": pl.Float64}
        | {"random_mean": pl.Float64, "random_sd": pl.Float64, "p_value": pl.Float64},
        beside=True,
    ),
)


def empty(name: str) -> pl.DataFrame:
    """A frame of `INPUTS` without rows."""
    return next(one.empty() for one in INPUTS if one.name == name)


@dataclass(frozen=True)
class ReportInputs:
    """The frames of one report, one row per … as in the relations that `INPUTS` names.

    `runs`: `dim_run`, in any order; `options` and `packages` are JSON texts, `warnings` is a list. `influence`:
    `neuron_influence`, with what `neuron_sign` says about each sign. `fits`: one that could not be made has NULL
    numbers and its `reason`. `tokens`: `neuron_token` with the text of each token.
    `published`: what papers print (`analyses.reference.published_values`). `intervals`: `influence_interval`, if
    `analyze` made it. `warnings`: what to know before reading (`run_warning`), besides the `warnings` of `runs`, which
    ingest gave. `quality`: one row per run and check. `values`: `measured_value`, with p-values corrected over all the
    report's runs if there are several (`group_test_across`). `contexts`, `targets`, `activations`: `neuron_context`,
    `neuron_target`, `neuron_activation` for the neurons that have a card (`analyses.report.data.cards.card_neurons`);
    `passages` and `moments` for the same: `neuron_top_activation`, `neuron_moments`; `neighbours`: their nearest
    neurons (`analyses.coordination.neighbours`).
    `neuron_groups`: how many signs of each group are settled (`neuron_group_summary`).
    `specificity`: `neuron_specificity`. `overlaps`: `ranking_overlap`. `matches`: `plateau_match`. `coactivation`:
    `analyses.across_runs.comparison`. `of_figures`: those that only a figure reads, by name
    (`analyses.report.figures`).
    """

    runs: pl.DataFrame
    influence: pl.DataFrame
    fits: pl.DataFrame
    deviations: pl.DataFrame
    tokens: pl.DataFrame = field(default_factory=lambda: empty("tokens"))
    published: pl.DataFrame = field(default_factory=lambda: empty("published"))
    intervals: pl.DataFrame = field(default_factory=lambda: empty("intervals"))
    decisions: pl.DataFrame = field(default_factory=lambda: empty("decisions"))
    neuron_groups: pl.DataFrame = field(default_factory=lambda: empty("neuron_groups"))
    differences: pl.DataFrame = field(default_factory=lambda: empty("differences"))
    specificity: pl.DataFrame = field(default_factory=lambda: empty("specificity"))
    overlaps: pl.DataFrame = field(default_factory=lambda: empty("overlaps"))
    matches: pl.DataFrame = field(default_factory=lambda: empty("matches"))
    warnings: pl.DataFrame = field(default_factory=lambda: empty("warnings"))
    quality: pl.DataFrame = field(default_factory=lambda: empty("quality"))
    values: pl.DataFrame = field(default_factory=lambda: empty("values"))
    contexts: pl.DataFrame = field(default_factory=lambda: empty("contexts"))
    targets: pl.DataFrame = field(default_factory=lambda: empty("targets"))
    activations: pl.DataFrame = field(default_factory=lambda: empty("activations"))
    passages: pl.DataFrame = field(default_factory=lambda: empty("passages"))
    moments: pl.DataFrame = field(default_factory=lambda: empty("moments"))
    neighbours: pl.DataFrame = field(default_factory=lambda: empty("neighbours"))
    coactivation: pl.DataFrame = field(default_factory=lambda: empty("coactivation"))
    of_figures: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    command: str = ""  # makes this report again
    created_at: str = ""  # ISO 8601, UTC

    @classmethod
    def of(cls, frames: Mapping[str, pl.DataFrame], **others: Any) -> "ReportInputs":
        """The inputs from frames by name; frames without a field are a figure's."""
        own = {one.name for one in fields(cls)}
        named: dict[str, Any] = {name: frame for name, frame in frames.items() if name in own}
        rest = {name: frame for name, frame in frames.items() if name not in own}
        return cls(**named, of_figures=rest, **others)

    def conformed(self, of_figures: Iterable[Input] = ()) -> "ReportInputs":
        """The same inputs with exactly the columns and types that the report reads; a figure's may be absent.

        Args:
            of_figures: the frames that figures read.

        Raises:
            ValueError: a frame lacks a column.
        """
        own: dict[str, Any] = {one.name: one.conformed(getattr(self, one.name)) for one in INPUTS}
        drawn = {one.name: one.conformed(self.of_figures.get(one.name, one.empty())) for one in of_figures}
        return replace(self, **own, of_figures=drawn)


def _column(found: pl.DataType | None, name: str, kind: type[pl.DataType] | pl.DataType) -> pl.Expr:
    """A column as `kind`: NULL if the frame lacks it; lists (as JSON) and times become text."""
    if found is None:
        return pl.lit(None, dtype=kind).alias(name)
    if isinstance(found, pl.List) and kind == pl.String:
        return pl.col(name).map_elements(lambda items: json.dumps(items.to_list()), return_dtype=pl.String)
    if isinstance(found, pl.Datetime) and kind == pl.String:
        return pl.col(name).dt.strftime("%Y-%m-%d %H:%M:%S")
    return pl.col(name).cast(kind)

"""The command `compare`: two or more runs side by side."""

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.chosen_runs import published_runs
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.matches import match_runs
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show, show_parts
from rare_tokens.common import presets
from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command

_NUMBERS = ("kappa", "step", "break")  # with an interval: columns NAME_low and NAME_high
# What the terminal shows besides the runs' names; --json has all.
_SAID = ("token_group", "decision", "p_value", *_NUMBERS, "reason")
_SAID_OF_PAIRS = (
    "token_group",
    "shared_10",
    "shared_50",
    "rank_correlation",
    "first",
    "matched",
    "expected",
    "p_value",
    "head_correlation",
    "reason",
)
_RUNS = """
select
    run.run_id, run.model, run.revision, run.layer, run.ablation, run.corpus,
    fit.preset, fit.token_group,
    fit.kappa, decision.kappa_low, decision.kappa_high,
    fit.step, decision.step_low, decision.step_high,
    fit.head_rank as break, decision.break_low, decision.break_high,
    decision.decision, decision.p_value, coalesce(fit.reason, decision.reason) as reason
from dim_run as run
join power_law_fit as fit using (run_id)
left join regime_decision as decision using (run_id, preset, token_group)
where run.run_id in $runs and fit.preset = $preset
order by list_position($runs, run.run_id), fit.token_group desc
"""
_PAIRS = """
with pair as (
    select one.run_id, other.run_id as other_run_id, $preset as preset, token_group
    from dim_run as one, dim_run as other, (values ('rare'), ('common')) as groups (token_group)
    where one.run_id in $runs and other.run_id in $runs
        and list_position($runs, one.run_id) < list_position($runs, other.run_id)
),

overlap as (
    select run_id, other_run_id, preset, token_group, shared_10, shared_50, rank_correlation,
        rank_correlation_low, rank_correlation_high
    from ranking_overlap
    where run_id <> other_run_id
    union all
    select other_run_id, run_id, preset, token_group, shared_10, shared_50, rank_correlation,
        rank_correlation_low, rank_correlation_high
    from ranking_overlap
    where run_id <> other_run_id
)

select
    pair.run_id, pair.other_run_id, pair.preset, pair.token_group,
    overlap.shared_10, overlap.shared_50,
    overlap.rank_correlation, overlap.rank_correlation_low, overlap.rank_correlation_high,
    matched.first, matched.matched, matched.expected, matched.p_value,
    matched.head_correlation, matched.layer_correlation, matched.chance_correlation,
    coalesce(matched.reason, alone.reason) as reason
from pair
left join overlap using (run_id, other_run_id, preset, token_group)
left join plateau_match as matched using (run_id, other_run_id, preset, token_group)
left join plateau_match as alone
    on pair.run_id = alone.run_id and pair.other_run_id = alone.other_run_id and alone.preset is null
order by list_position($runs, pair.run_id), list_position($runs, pair.other_run_id), token_group desc
"""


@click.command()
@click.argument("wanted", nargs=-1, required=True, metavar="RUN RUN...", shell_complete=run_ids)
@click.option(
    "--preset",
    default="es",
    show_default=True,
    type=click.Choice(list(presets.PRESETS)),
    help="Definition of rare and common.",
)
@global_options
def compare(settings: Settings, wanted: tuple[str, ...], preset: str) -> None:
    """Set two or more runs side by side: seeds, checkpoints, sizes, layers, references, texts.

    Prints the line and the decision of each run, then each pair: the neurons that both rank first (runs of the same
    layer), and the neurons of one run's head that have their partner in the other's (runs on the same positions, stored
    as neuron_match). `analyze` first, for intervals, decisions and overlap.
    """
    chosen = _chosen(settings, wanted)
    match_runs(chosen, settings)
    ids = chosen["run_id"].to_list()
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        runs, pairs = (opened.sql(query, runs=ids, preset=preset) for query in (_RUNS, _PAIRS))
    if runs.is_empty():
        raise UserError(f"No run of these has the preset {preset}. It needs `ingest --contexts nc-matched`.")
    if settings.json:
        show_parts({"runs": runs, "pairs": pairs})
        return
    names = _names(runs)
    said = _with_intervals(runs, _NUMBERS).select(_named("run_id", names, "run"), *_SAID)
    show(said, title=f"Runs, preset {preset}")
    click.echo()
    two = [_named("run_id", names, "run"), _named("other_run_id", names, "other_run")]
    show(_with_intervals(pairs, ("rank_correlation",)).select(*two, *_SAID_OF_PAIRS), title="Each two of them")
    if without := runs.filter(pl.col("decision").is_null())["run_id"].unique(maintain_order=True).to_list():
        settings.say(f"Without intervals and decisions: {', '.join(without)}. `{command('analyze')}` computes them.")


def _chosen(settings: Settings, wanted: tuple[str, ...]) -> pl.DataFrame:
    """The runs in the order given.

    Raises:
        UserError: fewer than two, or one of them twice.
    """
    found = pl.concat([published_runs(settings, (one,)) for one in wanted])
    if twice := found.filter(found["run_id"].is_duplicated())["run_id"].to_list():
        raise UserError(f"Run {twice[0]} is given twice. Name other runs to compare it with.")
    if len(found) < 2:
        raise UserError(f"One run cannot be compared. Name two or more; `{command('runs')}` lists them.")
    return found


def _names(runs: pl.DataFrame) -> dict[str, str]:
    """What tells each run from the others, by run_id."""
    from rare_tokens.analyses.report import run_labels

    rows = runs.unique("run_id", maintain_order=True).to_dicts()
    return dict(zip((row["run_id"] for row in rows), run_labels(rows), strict=True))


def _named(column: str, names: dict[str, str], shown: str) -> pl.Expr:
    return pl.col(column).replace_strict(names).alias(shown)


def _with_intervals(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """The frame with each number and its interval in one column of text."""
    said = {
        name: [_said(*values) for values in frame.select(name, f"{name}_low", f"{name}_high").rows()] for name in names
    }
    dropped = [f"{name}_{end}" for name in names for end in ("low", "high")]
    return frame.drop(dropped).with_columns(pl.Series(name, texts, pl.String) for name, texts in said.items())


def _said(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    number = "{:.0f}" if isinstance(value, int) else "{:.3g}"
    interval = "" if low is None or high is None else f" [{number.format(low)}, {number.format(high)}]"
    return number.format(value) + interval

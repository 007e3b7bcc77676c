"""The notebook that `explore` opens: a run at any threshold, its neurons, and SQL, read-only."""

import marimo

app = marimo.App(width="full", app_title="Rare token neurons")


@app.cell
def _():
    from pathlib import Path

    import marimo as mo
    import polars as pl

    from rare_tokens import warehouse
    from rare_tokens.analyses.explore_charts import described, deviation_chart, ranking_chart, ratio_chart, ratios
    from rare_tokens.analyses.explore_line import line_at
    from rare_tokens.common.errors import RareTokensError

    arguments = mo.cli_args()
    path = Path(str(arguments.get("warehouse") or "rare_tokens.duckdb"))
    wait = float(arguments.get("wait") or 10)

    def ask(query, **values):
        """Run a query; the file is open only meanwhile, so that others can write to it in between."""
        with warehouse.open(path, wait=wait) as opened:
            return opened.sql(query, **values)

    def shown(frame, **options):
        """A table to read: numbers to five digits; a neuron's number is a name, without separators."""
        rounded = frame.with_columns(pl.col(pl.Float32, pl.Float64).cast(pl.Float64).round_sig_figs(5))
        names = {"format_mapping": {"neuron": "{:d}".format}} if "neuron" in frame.columns else {}
        return mo.ui.table(rounded, **({"selection": None, "show_column_summaries": False} | names | options))

    return (
        RareTokensError,
        ask,
        described,
        deviation_chart,
        line_at,
        mo,
        path,
        pl,
        ranking_chart,
        ratio_chart,
        ratios,
        shown,
        wait,
        warehouse,
    )


@app.cell
def _(mo):
    mo.md(
        """
        # Rare token neurons

        Every neuron's influence is the mean |Δ loss| of ablating it, over the rare or the common tokens. Choose a run
        and where the line between rare and common is drawn; everything below follows. Nothing here writes to the
        warehouse, and its file is open only while a query runs.
        """
    )
    return


@app.cell
def _(ask):
    runs = ask(
        "select run_id, model, revision, layer, positions, neurons, corpus from dim_run"
        " where status = 'published' order by created_at, run_id"
    )
    presets = ask(
        "select preset, in_words, percentile, occurrences, words, elbow, strict from preset"
        " where percentile is not null"
    )
    return presets, runs


@app.cell
def _(mo, runs):
    names = runs["run_id"].to_list()
    mo.stop(not names, mo.md("The warehouse holds no published run. `rare-tokens demo` makes seven."))
    run = mo.ui.dropdown(names, value=names[-1], label="Run", searchable=True)
    return (run,)


@app.cell
def _(mo, presets):
    _choices = {f"{one['preset']}: {one['in_words']}": one["preset"] for one in presets.rows(named=True)}
    preset = mo.ui.dropdown(_choices, value=next(iter(_choices)), label="Preset")
    return (preset,)


@app.cell
def _(pl, preset, presets):
    # How the preset draws its line, as the parameters of influence_where and token_group_of.
    drawn = presets.filter(pl.col("preset") == preset.value).row(0, named=True)
    usual = int(drawn["percentile"])
    rule = {name: drawn[name] for name in ("occurrences", "words", "elbow", "strict")}
    return rule, usual


@app.cell
def _(mo, usual):
    percentile = mo.ui.slider(
        1, 99, value=usual, label="Rare: below percentile", show_value=True, debounce=True, full_width=True
    )
    return (percentile,)


@app.cell
def _(ask, line_at, percentile, rule, run):
    # The types by count, and how many of the run's positions each stands at: many share a count, so a percentile.
    steps = ask(
        """
        with graded as (
            select
                case when $occurrences then f.occurrence_percentile else f.percentile end as place,
                f.count, f.is_elbow, t.is_word, f.token_id
            from dim_run as r
            join token_frequency as f using (tokenizer_id, frequency_source_id)
            join dim_token as t using (tokenizer_id, token_id)
            where r.run_id = $run and f.count > 0
        ),
        at_positions as (
            select token_id, count(*) as positions from position_frequency where run_id = $run group by token_id
        )
        select
            place, count,
            token_group_of(place, is_word, is_elbow, $percentile, $words, $elbow, $strict) as token_group,
            count(*) as types,
            coalesce(sum(positions), 0)::bigint as positions
        from graded left join at_positions using (token_id)
        group by all order by place, token_group
        """,
        run=run.value,
        percentile=percentile.value,
        **rule,
    )
    line = line_at(steps, percentile.value)
    return (line,)


@app.cell
def _(line, mo, percentile, preset, run, usual):
    moved = "" if percentile.value == usual else f" (the preset's own is {usual})"
    mo.vstack(
        [
            mo.hstack([run, preset], justify="start", wrap=True),
            percentile,
            mo.md(f"Percentile {percentile.value}{moved}. {line.in_words()}"),
        ]
    )
    return


@app.cell
def _(ask, described, percentile, rule, run):
    influence = ask(
        "select token_group, neuron, rank, influence, mean_delta_loss, positions"
        " from influence_where($run, $percentile, occurrences := $occurrences, words := $words, elbow := $elbow,"
        " strict := $strict) where neuron is not null order by token_group, rank",
        run=run.value,
        percentile=percentile.value,
        **rule,
    )
    curve, fit = described(influence)
    return curve, fit


@app.cell
def _(mo):
    go = mo.ui.text(label="Go to neuron", placeholder="its number", debounce=True)
    return (go,)


@app.cell
def _(go, mo, pl, run, runs):
    neurons = runs.filter(pl.col("run_id") == run.value)["neurons"].item()
    typed = go.value.strip()
    marked = int(typed) if typed.isascii() and typed.isdigit() and int(typed) < neurons else None
    unknown = mo.callout(
        mo.plain_text(f"There is no neuron {typed}: those of this layer are 0 to {neurons - 1}."), "warn"
    )
    mo.vstack([go, *([unknown] if typed and marked is None else [])])
    return (marked,)


@app.cell
def _(curve, fit, marked, mo, ranking_chart, shown):
    mo.stop(curve.is_empty(), mo.md("No position is in either group at this threshold."))
    ranking = mo.ui.altair_chart(ranking_chart(curve, marked), chart_selection="interval", legend_selection=False)
    mo.vstack([ranking, mo.md("**Power law** of each group: influence falls as rank to the power −κ."), shown(fit)])
    return (ranking,)


@app.cell
def _(curve, deviation_chart, marked, mo):
    mo.stop(curve.is_empty())
    mo.hstack(
        [
            mo.ui.altair_chart(deviation_chart(curve, group, marked), chart_selection=False, legend_selection=False)
            for group in ("rare", "common")
        ],
        widths="equal",
    )
    return


@app.cell
def _(mo):
    matching = mo.ui.dropdown(
        {"loss": "loss", "loss, and words that start a word": "loss+word"},
        value="loss",
        label="Rare and common tokens compared have in common their window and",
    )
    return (matching,)


@app.cell
def _(ask, matching, preset, run):
    specificity = ask(
        "select neuron, ratio, ratio_low, ratio_high, adjusted_p_value, specific_to, reason from neuron_specificity"
        " where run_id = $run and preset = $preset and matching = $matching",
        run=run.value,
        preset=preset.value,
        matching=matching.value,
    )
    return (specificity,)


@app.cell
def _(curve, marked, matching, mo, pl, ratio_chart, ratios, shown, specificity):
    tested = specificity.filter(pl.col("neuron").is_not_null())
    ratio = ratios(curve, tested)
    why = [*specificity.filter(pl.col("neuron").is_null())["reason"].drop_nulls(), ""][0]
    computed = "" if len(specificity) else " It is not computed yet on this run: `rare-tokens analyze` does."
    mo.vstack(
        [
            mo.md(
                "## Rare over common\n\nThe ratio of influences follows the slider. Rare tokens are mostly harder to "
                "predict, which alone raises it; `specificity` compares at targets of like loss, with the median "
                "neuron as 1, at the preset's own threshold, with its 95 % interval over windows and a p that is "
                f"corrected over all neurons.{computed} {why}"
            ),
            matching,
            *(
                []
                if ratio.is_empty()
                else [mo.ui.altair_chart(ratio_chart(ratio, marked), chart_selection=False, legend_selection=False)]
            ),
            shown(ratio, page_size=10),
        ]
    )
    return (ratio,)


@app.cell
def _(ask, mo, preset, run, shown):
    decided = ask(
        "select token_group, decision, p_value, power, case when break_determined"
        " then format('{} [{}, {}]', break_rank, break_low, break_high) when not break_determined then 'not determined'"
        " else break_rank::varchar end as neurons, step, step_low, step_high, head, head_slope, kappa, kappa_low,"
        " kappa_high, reason from regime_decision where run_id = $run and preset = $preset order by token_group desc",
        run=run.value,
        preset=preset.value,
    )
    without = mo.md("Nothing is decided yet on this run: `rare-tokens analyze` does.")
    mo.vstack(
        [
            mo.md("## Regimes\n\nIs there a plateau? At the preset's own threshold, with intervals over windows."),
            without if decided.is_empty() else shown(decided),
        ]
    )
    return


@app.cell
def _(curve, mo, pl, ranking, shown):
    brushed = pl.DataFrame(ranking.value) if len(ranking.value) else curve.filter(pl.col("token_group") == "rare")
    leading = shown(
        brushed.select("rank", "neuron", "token_group", "influence", "mean_delta_loss", "deviation", "regime"),
        selection="single",
        initial_selection=[0] if len(brushed) else [],
        page_size=10,
    )
    mo.vstack(
        [
            mo.md("## Neurons\n\nThose of the brushed part of the figure, else all of the rare tokens; choose one."),
            leading,
        ]
    )
    return (leading,)


@app.cell
def _(leading, marked, mo):
    chosen = leading.value
    mo.stop(marked is None and not len(chosen), mo.md("Choose a neuron above, or type its number."))
    neuron = int(chosen["neuron"][0]) if marked is None else marked
    return (neuron,)


@app.cell
def _(curve, mo, neuron, percentile, pl, ratio, shown):
    here = (
        curve.filter(pl.col("neuron") == neuron)
        .with_columns(
            role=pl.when(pl.col("mean_delta_loss") > 0)
            .then(pl.lit("boost"))
            .when(pl.col("mean_delta_loss") < 0)
            .then(pl.lit("suppress"))
        )
        .select("token_group", "rank", "influence", "mean_delta_loss", "role", "deviation", "regime")
        .sort("token_group", descending=True)
    )
    mo.vstack(
        [
            mo.md(
                f"## Neuron {neuron}\n\nAt percentile {percentile.value}; `deviation` is δ, log distance to the line."
            ),
            shown(here) if len(here) else mo.md("It has no influence on either group at this threshold."),
            shown(ratio.filter(pl.col("neuron") == neuron)),
        ]
    )
    return (here,)


@app.cell
def _(ask, mo, neuron, preset, run, shown):
    profile = ask(
        "select token_group, rank, influence, mean_delta_loss, mean_delta_low, mean_delta_high, settled_role,"
        " deviation, regime, mean_activation, w_out_norm, null_space_share, frequency_correlation, raises, lowers"
        " from neuron_profile where run_id = $run and preset = $preset and neuron = $neuron order by token_group desc",
        run=run.value,
        preset=preset.value,
        neuron=neuron,
    )
    tests = ask(
        "select matching, ratio, ratio_low, ratio_high, adjusted_p_value, detectable_ratio, specific_to, reason"
        " from neuron_specificity where run_id = $run and preset = $preset and neuron = $neuron order by matching",
        run=run.value,
        preset=preset.value,
        neuron=neuron,
    )
    contexts = ask(
        "select direction, place, token_group, context, target, loss, delta_loss, activation"
        " from neuron_context($run, $neuron) order by direction, place",
        run=run.value,
        neuron=neuron,
    )
    mo.vstack(
        [
            mo.md(
                "At the preset's own threshold: role and the interval of Δ over windows (`mixed`: it holds 0), what it "
                "is, and what it raises and lowers."
            ),
            shown(profile),
            mo.md("Specificity, by what the compared tokens have in common."),
            shown(tests) if len(tests) else mo.md("Not computed yet on this run: `rare-tokens analyze` does."),
            mo.md("Where it helps and hurts most."),
            shown(contexts, page_size=10),
        ]
    )
    return contexts, profile, tests


@app.cell
def _(mo):
    query = mo.ui.code_editor(
        "select revision, token_group, round(max(influence), 4) as largest_influence\n"
        "from neuron_influence join dim_run using (run_id)\n"
        "where preset = 'es' group by all order by any_value(created_at), token_group",
        language="sql",
        label="One query, read-only; any relation of the warehouse",
    ).form(submit_button_label="Run", show_clear_button=False)
    mo.vstack([mo.md("## SQL"), query])
    return (query,)


@app.cell
def _(RareTokensError, mo, path, query, shown, wait, warehouse):
    def answered(text):
        try:
            return shown(warehouse.run_sql(path, text, 60, wait=wait))
        except RareTokensError as error:
            return mo.callout(mo.plain_text(str(error)), kind="danger")

    answered(query.value or query.element.value)
    return


if __name__ == "__main__":
    app.run()

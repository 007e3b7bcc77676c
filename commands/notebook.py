"""The notebook that `explore` opens: a run at any threshold, its neurons, and SQL, read-only."""

import marimo

app = marimo.App(width="medium", app_title="Rare token neurons")


@app.cell
def _():
    from pathlib import Path

    import marimo as mo
    import polars as pl

    from rare_tokens import warehouse
    from rare_tokens.analyses.explore_charts import described, deviation_chart, ranking_chart
    from rare_tokens.common.errors import RareTokensError

    arguments = mo.cli_args()
    path = Path(str(arguments.get("warehouse") or "rare_tokens.duckdb"))
    wait = float(arguments.get("wait") or 10)

    def ask(query, **values):
        """Run a query; the file is open only meanwhile, so that others can write to it in between."""
        with warehouse.open(path, wait=wait) as opened:
            return opened.sql(query, **values)

    def shown(frame, **options):
        """A table to read: numbers to five digits."""
        rounded = frame.with_columns(pl.col(pl.Float32, pl.Float64).cast(pl.Float64).round_sig_figs(5))
        return mo.ui.table(rounded, **({"selection": None, "show_column_summaries": False} | options))

    return RareTokensError, ask, described, deviation_chart, mo, path, pl, ranking_chart, shown, wait, warehouse


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
    return (runs,)


@app.cell
def _(mo, runs):
    names = runs["run_id"].to_list()
    mo.stop(not names, mo.md("The warehouse holds no published run. `rare-tokens demo` makes seven."))
    run = mo.ui.dropdown(names, value=names[-1], label="Run", searchable=True)
    preset = mo.ui.dropdown(
        {
            "es: words by type percentile (50)": "es",
            "nc: occurrences (50)": "nc",
            "ds: type percentile (15), elbow left out": "ds",
        },
        value="es: words by type percentile (50)",
        label="Preset",
    )
    return preset, run


@app.cell
def _(mo, preset):
    usual = {"es": 50, "nc": 50, "ds": 15}[preset.value]
    percentile = mo.ui.slider(
        1, 99, value=usual, label="Rare: below percentile", show_value=True, debounce=True, full_width=True
    )
    return percentile, usual


@app.cell
def _(mo, percentile, preset, run, usual):
    moved = "" if percentile.value == usual else f" (the preset's own is {usual})"
    mo.vstack([mo.hstack([run, preset], justify="start"), percentile, mo.md(f"Percentile {percentile.value}{moved}.")])
    return


@app.cell
def _(ask, described, percentile, preset, run):
    macros = {
        "es": "influence_at($run, $percentile, words := true)",
        "nc": "influence_at($run, $percentile, occurrences := true)",
        "ds": "influence_where($run, $percentile, elbow := false, strict := true)",
    }
    influence = ask(
        "select token_group, neuron, rank, influence, mean_delta_loss, positions"
        f" from {macros[preset.value]} where neuron is not null order by token_group, rank",
        run=run.value,
        percentile=percentile.value,
    )
    curve, fit = described(influence)
    return curve, fit


@app.cell
def _(curve, fit, mo, ranking_chart, shown):
    mo.stop(curve.is_empty(), mo.md("No position is in either group at this threshold."))
    ranking = mo.ui.altair_chart(ranking_chart(curve), chart_selection="interval", legend_selection=False)
    mo.vstack([ranking, mo.md("**Power law** of each group: influence falls as rank to the power −κ."), shown(fit)])
    return (ranking,)


@app.cell
def _(curve, deviation_chart, mo):
    mo.stop(curve.is_empty())
    mo.ui.altair_chart(deviation_chart(curve), chart_selection=False, legend_selection=False)
    return


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
def _(ask, leading, mo, run, shown):
    chosen = leading.value
    mo.stop(not len(chosen), mo.md("Choose a neuron above."))
    neuron = int(chosen["neuron"][0])
    profile = ask(
        "select mean_activation, w_out_norm, null_space_share, frequency_correlation, raises, lowers"
        " from neuron_profile where run_id = $run and neuron = $neuron limit 1",
        run=run.value,
        neuron=neuron,
    )
    contexts = ask(
        "select direction, place, token_group, context, target, loss, delta_loss, activation"
        " from neuron_context($run, $neuron) order by direction, place",
        run=run.value,
        neuron=neuron,
    )
    mo.vstack([mo.md(f"### Neuron {neuron}"), shown(profile), shown(contexts, page_size=10)])
    return


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

"""The layers of a model, as the page's figure and table show them: once, with the deepest of those in the report."""

import polars as pl

KEY = ["last_run_id", "edit_scope"]  # names a set of `layer_profile`


def shown_layers(profile: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """The rows of a report's layers, each with the run that shows them.

    Args:
        profile: `layer_profile`.
        runs: the report's runs, `run_id`.

    Returns:
        The rows of sets of which at least two layers are in the report, with `shown`, the run of the deepest; by layer,
        rare before common. A last layer that is in a set of either edit scope shows the one with more layers in the
        report, or `window`.
    """
    found = profile.join(runs.select("run_id"), on="run_id", how="semi")
    found = found.with_columns(
        here=pl.col("layer").n_unique().over(KEY), shown=pl.col("run_id").sort_by("layer").last().over(KEY)
    ).filter(pl.col("here") > 1)
    chosen = found.sort("here", "edit_scope", descending=True).unique("shown", keep="first", maintain_order=True)
    found = found.join(chosen.select("shown", "edit_scope"), on=["shown", "edit_scope"], how="semi")
    return found.drop("here").sort("shown", "preset", "layer", "token_group", descending=[False, False, False, True])

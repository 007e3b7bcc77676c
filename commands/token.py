"""The command `token`: which neurons carry a token."""

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.chosen_runs import one_run
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show, show_parts
from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import working

SHOWN = 10  # neurons per token
_TOKENS = """
select
    token.token_id, token_shown(token.text, token.bytes) as text, token.is_word, frequency.count, frequency.percentile,
    count(position.position_id) as positions, count(distinct position.window_id) as windows,
    avg(position.loss) as mean_loss
from dim_run as run
join dim_token as token using (tokenizer_id)
left join token_frequency as frequency
    on frequency.tokenizer_id = run.tokenizer_id and frequency.frequency_source_id = run.frequency_source_id
    and frequency.token_id = token.token_id
left join dim_position as position on position.run_id = run.run_id and position.target_token_id = token.token_id
where run.run_id = $run and token.text in ($token, ' ' || $token)
group by all
order by positions desc, token_id
"""
_LENS = """
select token_shown(token.text, token.bytes) as text, moved.direction, moved.rank, moved.neuron, moved.logit
from neuron_token as moved
join dim_run as run using (run_id)
join dim_token as token using (tokenizer_id, token_id)
where run_id = $run and token.text in ($token, ' ' || $token)
order by abs(moved.logit) desc, moved.neuron
limit 20
"""
_SIMILAR = """
select token.text
from dim_token as token join dim_run as run using (tokenizer_id)
where run.run_id = $run and starts_with($token, trim(token.text)) and length(trim(token.text)) > 1
order by length(trim(token.text)) desc, token.token_id
limit 4
"""


@click.command()
@click.argument("text")
@click.argument("run", required=False, shell_complete=run_ids)
@click.option("--neurons", default=SHOWN, show_default=True, type=click.IntRange(1), help="How many neurons to list.")
@global_options
def token(settings: Settings, text: str, run: str | None, neurons: int) -> None:
    """Tell which neurons carry the token TEXT.

    The neurons with the largest influence on predicting it, each with its mean effect and how much larger that is than
    at other tokens; and those whose activation raises or lowers its logit most. TEXT is one token, with or without its
    leading space. RUN is the start of a run_id; without it, the run made last.
    """
    run_id = one_run(settings, run)["run_id"]
    key = {"run": run_id, "token": text}
    with (
        working("Read the token's effects", quiet=settings.quiet),
        warehouse.open(settings.warehouse, wait=settings.wait) as opened,
    ):
        tokens = opened.sql(_TOKENS, **key)
        if tokens.is_empty():
            raise UserError(_no_token(text, run_id, opened.sql(_SIMILAR, **key)["text"].to_list()))
        found = opened.sql("from token_neuron($run, $token) where rank <= $neurons", **key, neurons=neurons)
        lens = opened.sql(_LENS, **key)
    if settings.json:
        show_parts({"tokens": tokens, "neurons": found, "logit_lens": lens})
        return
    show(tokens, title=f"{text!r} in {run_id}")
    for (one,), rows in found.group_by("text", maintain_order=True):
        click.echo()
        show(_shown(rows), title=f"Neurons of {one!r}, by influence on predicting it (nats)")
    for one in tokens.filter(positions=0)["text"]:
        settings.say(f"{one!r} is nowhere a target of this run: nothing was measured on it.")
    click.echo()
    show(lens, title="Neurons that move its logit most (logit lens)")


def _shown(rows: pl.DataFrame) -> pl.DataFrame:
    interval = pl.concat_str(
        pl.lit("["), _three("mean_delta_low"), pl.lit(", "), _three("mean_delta_high"), pl.lit("]")
    )
    return rows.select(
        "rank", "neuron", "influence", "mean_delta_loss", interval=interval, times_elsewhere="times_elsewhere"
    )


def _three(name: str) -> pl.Expr:
    return pl.col(name).map_elements(lambda value: f"{value:.3g}", return_dtype=pl.String)


def _no_token(text: str, run_id: str, similar: list[str]) -> str:
    hint = f" Its beginning is: {', '.join(map(repr, similar))}." if similar else ""
    return f"{text!r} is no token of run {run_id}: a token is one piece of the tokenizer's vocabulary.{hint}"

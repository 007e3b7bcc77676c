"""The command `neuron`: all that is known of one neuron."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.chosen_runs import one_run
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.settings import Settings, global_options, program
from rare_tokens.commands.support.terminal import show, show_parts
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically
from rare_tokens.common.progress import working
from rare_tokens.common.text import fitted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    Frames = Mapping[str, pl.DataFrame]

CONTEXT = 45  # characters of a context in the terminal


@click.command()
@click.argument("neuron", metavar="N", type=click.IntRange(min=0))
@click.argument("run", required=False, shell_complete=run_ids)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write the neuron's card as a page, with the text where it is active in colour.",
)
@global_options
def neuron(settings: Settings, neuron: int, run: str | None, html: Path | None) -> None:
    """Tell all that is known of neuron N of a run.

    Its rank, influence and role for rare and common tokens, whether it is specific to either, the tokens and places it
    helps and hurts most, where it is most active, and its nearest neighbours. RUN is the start of a run_id; without it,
    the run made last.
    """
    chosen = one_run(settings, run)
    if neuron >= chosen["neurons"]:
        raise UserError(
            f"Run {chosen['run_id']} has no neuron {neuron}: its layer has neurons 0 to {chosen['neurons'] - 1}."
        )
    if html is not None and not html.absolute().parent.is_dir():
        raise UserError(f"--html {html}: the folder {html.parent} does not exist.")
    with working(f"Read neuron {neuron}", quiet=settings.quiet):
        frames = warehouse.neuron_frames(settings.warehouse, chosen["run_id"], neuron, wait=settings.wait)
        frames |= warehouse.card_frames(settings.warehouse, {chosen["run_id"]: [neuron]}, wait=settings.wait)
    if html is not None:
        _write_page(settings, chosen, frames, html)
    elif settings.json:
        show_parts(frames)
    else:
        _print(chosen, neuron, frames)


def _write_page(settings: Settings, run: dict[str, Any], frames: "Frames", html: Path) -> None:
    from rare_tokens.analyses.report import ReportInputs, render_neuron_page

    inputs = ReportInputs.of(dict(frames), runs=pl.DataFrame([run]), command=f"{program()} report")
    page = render_neuron_page(inputs)
    try:
        write_atomically(html, partial(_write_text, page))
    except OSError as error:
        raise UserError(f"--html {html}: cannot be written ({error.strerror}). Name another file.") from error
    show(pl.DataFrame({"page": [str(html)]}), "json") if settings.json else click.echo(html)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _print(run: dict[str, Any], neuron: int, frames: "Frames") -> None:
    effects = frames["influence"].join(
        frames["deviations"].select("preset", "token_group", "deviation", "regime"),
        on=["preset", "token_group"],
        how="left",
    )
    rows = effects.sort("preset", pl.col("token_group") == "common").select(
        "preset", "token_group", "rank", pl.col("influence").round_sig_figs(3),
        mean_delta=_between("mean_delta_loss", "mean_delta"), role=pl.coalesce("settled_role", "role"),
        deviation=pl.col("deviation").round(2), regime="regime",
    )  # fmt: skip
    show(rows, title=f"Neuron {neuron} of {run['run_id']}, layer {run['layer']}")
    specific = frames["specificity"].filter(matching="loss")
    if specific.height:
        click.echo()
        ratios = specific.select(
            "preset", ratio=_between("ratio", "ratio"), adjusted_p="adjusted_p_value", specific_to="specific_to",
            detectable_ratio="detectable_ratio", reason="reason",
        )  # fmt: skip
        show(_without_empty(ratios), title="Rare beside common targets of the same loss, over the layer's median")
    click.echo()
    show(frames["moments"].select("quantity", "token_group", "positions", "mean", "sd", "skew"), title="Spread (es)")
    click.echo()
    for said, texts in _tokens(frames).items():
        click.echo(f"{said:<12}{texts}")
    click.echo()
    near = frames["neighbours"].select("kind", "place", neuron="other_neuron", similarity="similarity")
    show(near, title="Nearest neurons")
    for title, places in (
        ("Where it helps and hurts most", _contexts(frames)),
        ("Where it is active", _places(frames)),
    ):
        click.echo()
        show(places, title=title)


def _between(value: str, ends: str) -> pl.Expr:
    """A number with its interval as text; the number alone where there is none."""
    texts = pl.struct(value, low=f"{ends}_low", high=f"{ends}_high")
    return texts.map_elements(
        lambda row: None if row[value] is None else f"{row[value]:.3g}" + (
            "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
        ),
        return_dtype=pl.String,
    )  # fmt: skip


def _without_empty(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(name for name in frame.columns if frame[name].null_count() < frame.height)


def _tokens(frames: "Frames") -> dict[str, str]:
    """The tokens whose logits it raises and lowers, and whose loss it lowers and raises."""
    moved, targets = frames["tokens"].filter(pl.col("rank") <= 10), frames["targets"].sort("mean_delta_loss")
    helped = targets.filter(pl.col("mean_delta_loss") > 0).reverse().head(6)
    hurt = targets.filter(pl.col("mean_delta_loss") < 0).head(6)
    changed = {"helps most": helped, "hurts most": hurt}
    return {
        "raises": _joined(moved.filter(direction="up")["text"].to_list()),
        "lowers": _joined(moved.filter(direction="down")["text"].to_list()),
        **{said: _joined(rows["text"].to_list(), rows["mean_delta_loss"].to_list()) for said, rows in changed.items()},
    }


def _joined(texts: list[str], changes: list[float] | None = None) -> str:
    shown = [repr(fitted(text, 24)).replace("\\\\", "\\") for text in texts]
    if changes is not None:
        shown = [f"{text} {change:+.3f}" for text, change in zip(shown, changes, strict=True)]
    return "  ".join(shown) or "–"


def _contexts(frames: "Frames") -> pl.DataFrame:
    rows = [
        {"direction": row["direction"], "delta_loss": f"{row['delta_loss']:+.3f}", "activation": row["activation"]}
        | {"text ▸ target": f"{_ending(row['context'] or '')} ▸ {visible(row['target'] or '?')}"}
        for row in frames["contexts"].iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("direction", "delta_loss", "activation", "text ▸ target")))


def _places(frames: "Frames") -> pl.DataFrame:
    """The end of each passage up to the place itself."""
    rows = [
        {"sample": row["sample"], "activation": row["activation"], "delta_loss": f"{row['delta_loss']:+.3f}"}
        | {"text": _ending("".join(text or "?" for text in row["tokens"][: row["at"]]))}
        for row in frames["passages"].iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("sample", "activation", "delta_loss", "text")))


def _ending(text: str) -> str:
    """The last characters of a text, made visible, with an ellipsis where it is cut."""
    shown = visible(text[-CONTEXT:])
    return f"…{shown}" if len(text) > CONTEXT else shown

"""What commands that change the warehouse check before they begin, and say when they are done."""

import polars as pl

from rare_tokens.commands.support.settings import Settings
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.errors import UserError


def show_outcome(settings: Settings, said: str, rows: pl.DataFrame) -> None:
    """Report what was done: a remark for people, rows for programs."""
    if settings.json:
        show(rows, settings.form)
    else:
        settings.say(said)


def require_file(settings: Settings) -> None:
    """Raise a UserError if there is no warehouse."""
    if not settings.warehouse.exists():
        raise UserError(f"There is no warehouse {settings.warehouse}. Name another with --warehouse.")

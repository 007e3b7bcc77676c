"""What a command that changes the warehouse says when it is done, and what it needs before it begins."""

import polars as pl

from rare_tokens.commands.support.settings import Settings
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.errors import UserError


def show_outcome(settings: Settings, said: str, rows: pl.DataFrame) -> None:
    """What was done: a remark for a person, rows for a program."""
    if settings.json:
        show(rows, settings.form)
    else:
        settings.say(said)


def require_file(settings: Settings) -> None:
    """Refuse where the warehouse is not there; UserError."""
    if not settings.warehouse.exists():
        raise UserError(f"There is no warehouse {settings.warehouse}. Name another with --warehouse.")

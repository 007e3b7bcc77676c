"""The command `sql`: runs one read-only query."""

import sys
from pathlib import Path

import click

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import FORMATS, show
from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import working


class _Query(click.Command):
    """A command whose query may begin with a comment, which looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with a query that begins with a comment behind all options."""
        comments = [text for text in args if text.startswith("--") and text[2:3].isspace()]
        if comments and "--" not in args:
            args = [*(text for text in args if text not in comments), "--", *comments]
        return super().parse_args(ctx, args)


@click.command(cls=_Query)
@click.argument("query", metavar="SQL|FILE.sql|-")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Format of the rows [default: table].")
@click.option("--timeout", default=60.0, show_default=True, help="Stop the query after this many seconds.")
@global_options
def sql(settings: Settings, query: str, form: str | None, timeout: float) -> None:
    """Run one read-only query.

    Give the query itself, the path of a .sql file, or `-` to read it from stdin.
    """
    text = _query_text(query)
    with working("Query", quiet=settings.quiet):
        rows = warehouse.run_sql(settings.warehouse, text, timeout, wait=settings.wait)
    show(rows, form or settings.form, whole="--format csv or --json")


def _query_text(query: str) -> str:
    try:
        if query == "-":
            return sys.stdin.read()
        if query.endswith(".sql"):
            return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{query}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{query}: is not UTF-8 text.") from error
    return query

"""The command `runs`: lists the runs and how far each got."""

import click

from rare_tokens.commands.support.chosen_runs import listed_runs
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.program import command


@click.command()
@global_options
def runs(settings: Settings) -> None:
    """List the runs and their status.

    --json prints all that is known about each.
    """
    found = listed_runs(settings)
    if found.is_empty():
        settings.say(
            f"{settings.warehouse} holds no runs yet. `{command('ingest --model gpt2')}` makes one."
            f" `{command('demo')}` several."
        )
    show(found, settings.form)

"""The entry point: `python cli.py COMMAND`, or `rare-tokens COMMAND` once installed.

The commands are in `commands/`, which sees all layers. A command parses, makes a short sequence of calls, prints.
Only commands that need torch and similar packages import them, so `runs` and `sql` answer at once.
"""

import os

import click

from rare_tokens.commands import (
    analyze,
    attach,
    check,
    compare,
    delete,
    demo,
    explore,
    export,
    ingest,
    migrate,
    neuron,
    report,
    runs,
    sql,
    tables,
    token,
    vacuum,
)
from rare_tokens.commands.support.settings import group_options, run
from rare_tokens.common.version import VERSION

# Threads that wait by spinning make a shared machine ten times slower; torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="rare-tokens")
@group_options
def cli() -> None:
    """Which single neurons of a language model carry its rare words, and how?

    One ingest writes the effect of ablating every neuron of the last MLP at every sampled token; everything after
    that is a query.
    """


for command in (
    ingest.ingest,
    runs.runs,
    tables.tables,
    sql.sql,
    analyze.analyze,
    neuron.neuron,
    token.token,
    compare.compare,
    report.report,
    explore.explore,
    check.check,
    export.export,
    attach.attach,
    delete.delete,
    migrate.migrate,
    vacuum.vacuum,
    demo.demo,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; the console script `rare-tokens`."""
    run(cli)


if __name__ == "__main__":
    main()

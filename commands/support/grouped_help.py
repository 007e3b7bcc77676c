"""Help of a command with many options: in groups, each with its title."""

from typing import Any

import click

GENERAL = "Any command"


class GroupedOption(click.Option):
    """An option that says which group it is in."""

    def __init__(self, *given: Any, group: str, **named: Any) -> None:
        super().__init__(*given, **named)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists the options by their groups, in the order in which these first come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group; options without one, which every command has, come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "group", GENERAL), []).append(record)
        sections[GENERAL] = sections.pop(GENERAL, [])
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

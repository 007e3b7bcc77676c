"""Pages of the site that are made when it is built, so that they cannot fall behind: commands, relations, changelog."""

import sys
from pathlib import Path

import click
from properdocs.config.defaults import ProperDocsConfig
from properdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: ProperDocsConfig) -> Files:
    """Add what is made from the code, and the texts that lie outside docs/."""
    sys.path.insert(0, str(ROOT))  # the site is also built where the project is not installed
    made = {
        "reference/commands.md": commands(),
        "reference/relations.md": relations(),
        "reference/card.md": (ROOT / "ingest/embedded/CARD.md").read_text(encoding="utf-8"),
        "reference/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](../"),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands() -> str:
    """The help of every command, as the program prints it."""
    from rare_tokens import cli
    from rare_tokens.commands.support.settings import DEFAULT_CONFIG

    lines = [
        "# Commands",
        "",
        f"Every command takes the global options, before or after its name. The file `{DEFAULT_CONFIG}` in the",
        "current folder, or the one that `--config` names, may set any of them, and a command's own options in a",
        "table with its name. The environment (`RARE_TOKENS_WAREHOUSE`) overrides the file, and what is typed",
        "overrides both.",
        "",
        _help(cli.cli, "rare-tokens"),
    ]
    for name, command in sorted(cli.cli.commands.items()):
        lines += [f"## {name}", "", _help(command, f"rare-tokens {name}")]
    return "\n".join(lines)


def relations() -> str:
    """Every relation of an empty warehouse, with the types and comments that the database holds of it."""
    from rare_tokens import warehouse

    lines = ["# Relations", "", "`rare-tokens tables NAME` prints the same of a warehouse.", ""]
    for table in warehouse.tables(Path("there is no such file.duckdb")):
        lines += [f"## {table.name}", "", f"{table.summary} {table.grain}", ""]
        if table.columns:
            lines += ["| column | type | |", "|---|---|---|"]
            lines += [f"| `{one.name}` | {_cell(one.type)} | {_cell(one.description)} |" for one in table.columns]
            lines.append("")
    return "\n".join(lines)


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=96, max_content_width=96)
    return f"```text\n{command.get_help(context)}\n```\n"


def _cell(text: str) -> str:
    """Text in a table of Markdown: no cell ends and no tag begins within it."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")

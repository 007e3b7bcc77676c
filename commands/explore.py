"""The command `explore`: shows the warehouse as a notebook in the browser, or as a page."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import polars as pl

from rare_tokens.commands.support.chosen_runs import published_runs
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import IMPORT_ROOT
from rare_tokens.common.program import install
from rare_tokens.common.progress import working

NOTEBOOK = Path(__file__).with_name("notebook.py")
# Where a page that marimo wrote finds its viewer: marimo has no export that holds it (28 MB of modules, which a browser
# does not load from a file).
_VIEWER = re.compile(r"https://([\w.-]+)/npm/@marimo-team/frontend")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port to serve on [default: a free one].")
@click.option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
@click.option(
    "--edit",
    "copy",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.py",
    help="Copy the notebook to this new file and open it for editing.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Run it once and write the result as a page. Its viewer comes from the web when it is opened; `report` writes "
    "a page that opens offline.",
)
@global_options
def explore(settings: Settings, port: int | None, no_browser: bool, copy: Path | None, html: Path | None) -> None:
    """Open a read-only notebook on the warehouse.

    Pick a run and move the percentile: the ranking, the deviations and the regimes follow, with SQL beside them. Needs
    the extra `explore`. It is served on this machine only, and the address holds an access token.
    """
    if copy and html:
        raise UserError("--edit and --html: give one of the two.")
    if importlib.util.find_spec("marimo") is None:
        raise UserError(f"The notebook needs marimo. In this program's folder: {install('explore')}")
    published_runs(settings, ())
    given = ["--", "--warehouse", str(settings.warehouse.absolute()), "--wait", str(max(settings.wait, 10.0))]
    if html is not None:
        _export(settings, html, given)
        return
    notebook = NOTEBOOK if copy is None else _copied(copy)
    place = ["--port", str(port)] if port else []
    marimo = ["edit" if copy else "run", str(notebook), "--no-sandbox", "--token", *place]
    sys.stdout.flush()
    # This process becomes marimo, so Ctrl-C or closing the terminal ends the server and leaves nothing behind.
    os.execve(sys.executable, _command([*marimo, *(["--headless"] if no_browser else []), *given]), _environment())  # noqa: S606


def _export(settings: Settings, html: Path, given: list[str]) -> None:
    """Write the page, under another name first, so that a failed or half-written page is never left."""
    if not html.parent.is_dir():
        raise UserError(f"--html {html}: the folder {html.parent} does not exist.")
    partial = html.with_name(f"{html.name}.partial")
    try:
        with working("Run the notebook", quiet=settings.quiet), TemporaryDirectory() as folder:
            notebook = shutil.copy(NOTEBOOK, folder)  # marimo keeps what it ran beside the notebook
            page = ["--no-include-code", "-f", "-o", str(partial)]
            _run(["export", "html", notebook, "--no-sandbox", *page, *given])
        viewer = _VIEWER.search(partial.read_text(encoding="utf-8"))
        partial.replace(html)
    finally:
        partial.unlink(missing_ok=True)
    if viewer is not None:
        settings.say(
            f"{html} holds the numbers and figures, but not marimo's viewer, which it loads from {viewer[1]}: it does "
            "not open offline. `rare-tokens report` writes a page that does."
        )
    show(pl.DataFrame({"page": [str(html)]}), "json") if settings.json else click.echo(html)


def _copied(copy: Path) -> Path:
    if copy.suffix != ".py":
        raise UserError(f"--edit {copy}: a notebook is a Python file; give a name that ends in .py.")
    try:
        with copy.open("x", encoding="utf-8") as file:
            file.write(NOTEBOOK.read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise UserError(f"--edit {copy}: is there already. Name a new file, or open it with `marimo edit`.") from error
    except OSError as error:
        raise UserError(f"--edit {copy}: cannot be written ({error.strerror}).") from error
    return copy


def _run(arguments: list[str]) -> None:
    """Run marimo's own command line in silence.

    Raises:
        UserError: it failed; the message has its first line.
    """
    command, environment = _command(arguments), _environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = [*done.stderr.strip().splitlines(), f"marimo ended with {done.returncode}"]
        raise UserError(f"The notebook could not be run: {said[0]}")


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "marimo", *arguments]


def _environment() -> dict[str, str]:
    """The environment in which the notebook imports this package, even if it is a checkout and not installed."""
    modules = [str(IMPORT_ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, modules))}

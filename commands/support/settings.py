"""The options that every command takes, before or after its name, and the error boundary around all of them."""

import errno
import functools
import hashlib
import logging
import os
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from rare_tokens.common.errors import RareTokensError, UserError
from rare_tokens.common.files import is_utf8, require_local
from rare_tokens.common.interrupts import stopped_by_ctrl_c
from rare_tokens.common.program import program
from rare_tokens.common.text import inert

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_WAREHOUSE = "rare_tokens.duckdb"
DEFAULT_CONFIG = "rare_tokens.toml"
INTERRUPTED = 130
_QUERY_STOPPED = "Query interrupted"  # how the database reports Ctrl-C during a query
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
LONGEST_NAME = 100  # characters of a file's name in a message
_NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}


@dataclass(frozen=True)
class Settings:
    """The global options as a command sees them."""

    warehouse: Path = Path(DEFAULT_WAREHOUSE)
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    wait: float = 0.0
    log_file: Path | None = None

    @property
    def form(self) -> str:
        """The output format that --json decides."""
        return "json" if self.json else "table"

    def say(self, text: str) -> None:
        """Tell a person what happened, on stderr; silent with --quiet."""
        if not self.quiet:
            print(inert(text), file=sys.stderr, flush=True)  # which a bar that is shown puts above itself


_OPTIONS = (
    click.option("--warehouse", type=click.Path(path_type=Path), help="The DuckDB file [default: rare_tokens.duckdb]."),
    click.option("--json", is_flag=True, default=None, help="Print results as JSON."),
    click.option("--quiet", is_flag=True, default=None, help="Print neither progress nor remarks."),
    click.option("--verbose", is_flag=True, default=None, help="Print more remarks."),
    click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Write a log to this file."),
    click.option("--wait", type=click.FloatRange(min=0), help="Seconds to wait for a locked warehouse [default: 0]."),
    click.option("--debug", is_flag=True, default=None, help="Show a traceback on errors."),
)


def global_options(function: Function) -> Function:
    """Give a command the global options. It receives them as `settings`; its own come before those of the group."""

    @click.pass_context
    @functools.wraps(function)
    def with_settings(context: click.Context, /, **given: Any) -> Any:
        own = {item.name: given.pop(item.name) for item in fields(Settings)}
        above = context.find_object(Settings) or Settings()
        settings = replace(above, **{name: value for name, value in own.items() if value is not None})
        require_local(settings.warehouse)
        start_logging(settings)
        return function(settings=settings, **given)

    decorated: Any = with_settings
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def group_options(function: Function) -> Function:
    """Give the group the same options; they come before the environment and the configuration file."""

    @click.pass_context
    @functools.wraps(function)
    def with_settings(context: click.Context, /, config: Path | None, **given: Any) -> Any:
        from_file = read_config(config, context)
        context.default_map = from_file
        named = {"warehouse": os.environ.get("RARE_TOKENS_WAREHOUSE")}
        settings = Settings()
        sources: tuple[dict[str, Any], ...] = (from_file, named, given)
        for source in sources:
            known: dict[str, Any] = {item.name: source.get(item.name) for item in fields(Settings)}
            settings = replace(settings, **{name: value for name, value in known.items() if value is not None})
        context.obj = replace(
            settings,
            warehouse=Path(settings.warehouse),
            log_file=None if settings.log_file is None else Path(settings.log_file),
        )
        return function(**{name: value for name, value in given.items() if name not in Settings.__annotations__})

    decorated: Any = with_settings
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    path = click.Path(path_type=Path, dir_okay=False)
    return click.option(
        "--config", type=path, help=f"Read options from this TOML file [default: {DEFAULT_CONFIG}, where there is one]."
    )(decorated)


def read_config(path: Path | None, context: click.Context) -> dict[str, Any]:
    """Options from a TOML file: global ones at the top, a command's own in a table named after it.

    Raises:
        UserError: the file that was named is missing, is not TOML, or names an option that does not exist.
    """
    if path is None:
        path = Path(DEFAULT_CONFIG)
        if not path.is_file():
            return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"--config {path}: not readable as TOML ({error}).") from error
    inner = [value for table in values.values() if isinstance(table, dict) for value in table.values()]
    _require_text([*values.values(), *inner], f"--config {path}")
    top = {item.name for item in fields(Settings)}
    group = context.command
    assert isinstance(group, click.Group)
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        command = group.commands.get(key)
        if command is not None and isinstance(value, dict):
            known = {option for parameter in command.params for option in [parameter.name]}
            several = {parameter.name for parameter in command.params if getattr(parameter, "multiple", False)}
            settings = {inner.replace("-", "_"): setting for inner, setting in value.items()}
            renamed[key] = {
                inner: [setting] if inner in several and isinstance(setting, str) else setting
                for inner, setting in settings.items()
            }
            if unknown := sorted(set(renamed[key]) - known):
                raise UserError(f"--config {path}: the command {key} has no option {unknown[0]}.")
        elif name in top:
            renamed[name] = value
        else:
            raise UserError(f"--config {path}: there is no option or command {key}.")
    return renamed


def start_logging(settings: Settings) -> None:
    """Remarks of the library on stderr, and everything in the log file where one is named."""
    log = logging.getLogger("rare_tokens")
    log.handlers.clear()
    log.propagate = False
    log.setLevel(logging.DEBUG if settings.verbose or settings.log_file else logging.INFO)
    screen = _Screen()
    screen.setLevel(logging.ERROR if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO)
    screen.setFormatter(_Inert("%(message)s"))
    log.addHandler(screen)
    if settings.log_file is not None:
        try:
            file = logging.FileHandler(settings.log_file, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--log-file {settings.log_file}: cannot be written ({error.strerror}).") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


class _Screen(logging.Handler):
    """Writes to stderr as it is at that moment, so that a bar that is shown puts it above itself; a warning once."""

    def __init__(self) -> None:
        super().__init__()
        self.are_known = False
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless it is a warning that is known."""
        text = self.format(record)
        if record.levelno == logging.WARNING:
            if self.are_known or text in self._said:
                return
            self._said.add(text)
        print(text, file=sys.stderr, flush=True)


@contextmanager
def known_warnings(*, are_known: bool) -> Iterator[None]:
    """Keep warnings off the screen while the context lasts, if the user has seen them: a run that resumes."""
    screens = [one for one in logging.getLogger("rare_tokens").handlers if isinstance(one, _Screen)]
    for screen in screens:
        screen.are_known = are_known
    try:
        yield
    finally:
        for screen in screens:
            screen.are_known = False


class _Inert(logging.Formatter):
    """Makes remarks safe to print: names of models, files and tokens may contain terminal commands."""

    def format(self, record: logging.LogRecord) -> str:
        return inert(super().format(record))


def run(group: click.Group, arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end the process with its exit code.

    0 done, 1 a bug, 2 the user's input, 3 refused by data quality, 4 locked by another process, 130 interrupted.
    """
    arguments = _hoisted(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        _require_text(arguments, "the command line")
        with stopped_by_ctrl_c():
            code = group.main(args=arguments, prog_name=program(), standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("Interrupted. Run the same command again to resume it.", INTERRUPTED, debug)
    except KeyboardInterrupt:
        _fail("Interrupted. Run the same command again to resume it.", INTERRUPTED, debug)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except RareTokensError as error:
        _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if (refusal := _refusal(error)) is not None:
            _fail(refusal, 2, debug)
        _report_bug(error, debug)
    except RuntimeError as error:
        if str(error) == _QUERY_STOPPED:
            _fail("Interrupted. Run the same command again to resume it.", INTERRUPTED, debug)
        _report_bug(error, debug)
    except Exception as error:  # the one place: whatever reaches it is a bug of ours
        _report_bug(error, debug)


def _refusal(error: OSError) -> str | None:
    """What a system error means to a user, if a disk or a path causes it; None if it is a bug."""
    if error.errno in _NO_SPACE:
        return "The disk is full. Free some space and run the same command again: it resumes."
    name = str(error.filename or "A file")
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    if error.errno in _UNUSABLE:
        return f"{name} cannot be used ({error.strerror}). Check the disk and its permissions."
    if error.errno in _NO_PATH:
        return f"{name} cannot be used ({error.strerror}). Name another file."
    return None


def _require_text(values: list[Any], where: str) -> None:
    """Refuse null characters, which no path may hold, and text that is not UTF-8, which cannot be stored."""
    for value in [value for value in values if isinstance(value, str)]:
        if "\0" in value:
            raise UserError(f"A value in {where} holds a null character. Remove it.")
        if not is_utf8(value):
            raise UserError(f"{value!r} in {where} is not UTF-8. Rename the file, or leave it out.")


def _hoisted(arguments: list[str]) -> list[str]:
    """The arguments with --config FILE and --version moved to the front: both are read before a command's options."""
    front: list[str] = []
    rest: list[str] = []
    place = 0
    while place < len(arguments):
        argument = arguments[place]
        if argument == "--":
            break
        width = {"--config": 2, "--version": 1}.get(argument, 1 if argument.startswith("--config=") else 0)
        taken = arguments[place : place + max(1, width)]
        (front if width == len(taken) else rest).extend(taken)
        place += len(taken)
    return front + rest + arguments[place:]


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(f"Error: {inert(message)}", markup=False)
    sys.exit(code)


def _report_bug(error: BaseException, debug: bool) -> NoReturn:
    """Report a bug, under an id that is the same whenever the same fault occurs."""
    text = "".join(traceback.format_exception(error))
    places = [f"{frame.name}:{frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
    identity = hashlib.sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:8]
    logging.getLogger("rare_tokens").debug("bug %s\n%s", identity, text)
    if debug:
        sys.stderr.write(text)
    hint = "" if debug else " Please run it again with --debug and report what it prints."
    first = str(error).splitlines()[0][:200] if str(error) else ""
    _fail(f"This is a bug in rare-tokens (report {identity}: {type(error).__name__}: {first}).{hint}", 1, False)

"""The report's figures: every module here with `FIGURES` adds them to the page."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from rare_tokens.analyses.report.data.inputs import Input
from rare_tokens.analyses.report.figures.figure import Figure


@cache
def figures() -> tuple[Figure, ...]:
    """Every figure, in the order of the modules' names."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return tuple(figure for module in modules for figure in getattr(module, "FIGURES", ()))


def inputs() -> tuple[Input, ...]:
    """The frames that only figures read, each once."""
    return tuple({one.name: one for figure in figures() for one in figure.reads}.values())

"""What to type to run this program: one name for it in every message."""

import sys
from pathlib import Path

CHECKOUT = "python cli.py"
INSTALLED = "rare-tokens"


def program() -> str:
    """How the user starts this program; from Python, as it is called once installed."""
    return CHECKOUT if Path(sys.argv[0]).name == "cli.py" else INSTALLED


def command(words: str) -> str:
    """A command as it is typed, such as ``rare-tokens analyze RUN`` for ``analyze RUN``."""
    return f"{program()} {words}"


def install(extra: str = "") -> str:
    """The command that installs this program, with an extra, from its folder: it is not on a package index."""
    return f'python -m pip install -c constraints.txt ".{f"[{extra}]" if extra else ""}"'

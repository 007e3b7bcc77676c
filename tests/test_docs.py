"""The documentation: its commands are ones that exist and run, its pages are all in the site, which builds strictly.

A fence after the line ``<!-- run -->`` is run, all of them in one empty folder in the order of the site's navigation;
the first line of a fence after ``<!-- output -->`` must be printed by the fence before it.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from rare_tokens import cli
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
FENCE = re.compile(r"(?:^<!-- (run|output) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:rare-tokens|python cli\.py) ((?:\"[^\"]*\"|'[^']*'|[^\"'\n;&|)])+)")
LOADED = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)")
MADE = {"reference/commands.md", "reference/relations.md", "reference/card.md", "reference/changelog.md"}
# `python cli.py` and `rare-tokens` as this checkout has them, whatever is installed.
PRELUDE = f"""
set -euo pipefail
export PYTHONPATH={shlex.quote(str(REPOSITORY))} NO_COLOR=1
rare-tokens() {{ {shlex.quote(sys.executable)} {shlex.quote(str(REPOSITORY / "cli.py"))} "$@"; }}
python() {{ {shlex.quote(sys.executable)} "$@"; }}
"""


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    page: str
    mark: str
    language: str
    text: str


def navigation() -> list[str]:
    """The pages of the site in its order, from the lines of `nav`."""
    nav = (REPOSITORY / "properdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    return re.findall(r"^\s*- (\S+\.md)$", nav, re.MULTILINE)


def fences(page: str, root: Path = DOCS) -> list[Fence]:
    text = (root / page).read_text(encoding="utf-8")
    return [Fence(page, mark, language, body) for mark, language, body in FENCE.findall(text)]


def every_fence() -> list[Fence]:
    return [one for page in navigation() if page not in MADE for one in fences(page)] + fences("README.md", REPOSITORY)


def typed() -> list[tuple[str, str]]:
    """Every call of the program in a shell block: the page, and its words after the program's name."""
    calls = []
    for fence in every_fence():
        if fence.language != "sh":
            continue
        text = fence.text.replace("\\\n", " ")
        calls += [(fence.page, match[1]) for match in CALL.finditer(text)]
    return calls


def test_every_page_is_in_the_navigation_and_every_marked_fence_is_seen():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages | MADE == set(navigation())
    assert len(navigation()) == len(set(navigation()))
    marks = sum(path.read_text(encoding="utf-8").count("<!-- run -->") for path in DOCS.rglob("*.md"))
    assert marks == sum(fence.mark == "run" for fence in every_fence()) > 10


def test_every_typed_command_and_option_exists():
    calls = typed()
    assert len(calls) > 40
    known = {option for parameter in cli.cli.params for option in parameter.opts}
    for page, call in calls:
        words = shlex.split(call, comments=True)
        name = next((word for word in words if word in cli.cli.commands), None)
        assert name or "--version" in words, f"{page}: {call} names no command"
        own = set(known)
        if name is not None:
            own |= {option for parameter in cli.cli.commands[name].params for option in parameter.opts}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in own]
        assert not unknown, f"{page}: {call} has no option {unknown}"


def test_every_option_explains_itself_in_the_reference():
    without = {
        f"{name} {option.opts[0]}"
        for name, command in cli.cli.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not option.show_default
    }
    assert not without


@pytest.mark.slow
def test_the_documented_commands_run_and_print_what_is_shown(tmp_path):
    ran = [fence for page in navigation() if page not in MADE for fence in fences(page) if fence.mark]
    script, shown = [PRELUDE], {}
    for place, fence in enumerate(ran):
        if fence.mark == "output":
            shown[place] = fence
        elif fence.language == "python":
            script.append(f"echo '@@{place}'\npython - <<'PROGRAM'\n{fence.text}PROGRAM\n")
        else:
            script.append(f"echo '@@{place}'\n{fence.text}")
    process = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    parts = re.split(r"^@@(\d+)\n", process.stdout, flags=re.MULTILINE)
    printed = {int(place): text for place, text in zip(parts[1::2], parts[2::2], strict=True)}
    assert len(printed) + len(shown) == len(ran) > 15
    for place, fence in shown.items():
        before = printed[max(other for other in printed if other < place)]
        head = fence.text.splitlines()[0].split()
        assert any(line.split() == head for line in before.splitlines()), f"{fence.page}: {head} is not in {before}"


@pytest.mark.slow
def test_the_site_builds_strictly_and_holds_what_it_is_made_from(tmp_path):
    pytest.importorskip("properdocs")
    built = subprocess.run(
        [sys.executable, "-m", "properdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    relations = (tmp_path / "reference" / "relations.html").read_text(encoding="utf-8")
    assert "neuron_influence" in relations
    assert "mean |delta_loss| over the group" in relations
    commands = (tmp_path / "reference" / "commands.html").read_text(encoding="utf-8")
    for name, command in cli.cli.commands.items():
        assert f"rare-tokens {name}" in commands
        assert all(option.opts[0] in commands for option in command.params if isinstance(option, click.Option))
    for page in tmp_path.rglob("*.html"):
        loaded = LOADED.findall(page.read_text(encoding="utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"


def test_links_of_the_readme_lead_somewhere():
    """The site's own links are checked when it is built; the README is not in it."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)", readme):
        assert (REPOSITORY / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (REPOSITORY / path).read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path} has no heading #{anchor}"

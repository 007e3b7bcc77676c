"""How `--corpus` names a source: labels, paths, and data sets of the hub."""

from pathlib import Path

import pytest

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.sources import C4_ON_THE_HUB, HubName, parse_hub_name, parse_sources
from tests.support.corpora import write

NAMES = {
    "hf:stas/c4-en-10k": HubName("stas/c4-en-10k"),
    "hf:wikitext": HubName("wikitext"),
    "hf:allenai/c4:en": HubName("allenai/c4", ("en",)),
    "hf:a/b:en:test": HubName("a/b", ("en", "test")),
    "hf:a/b::test": HubName("a/b", ("", "test")),
    "hf:a/b:": HubName("a/b"),
    "hf:a/b@v1": HubName("a/b", (), "v1"),
    "hf:a/b@refs/convert/parquet": HubName("a/b", (), "refs/convert/parquet"),
    "hf:a/b#content": HubName("a/b", (), None, "content"),
    "hf:HuggingFaceFW/fineweb:sample-10BT:train@9bb295d#meta.text #1": HubName(
        "HuggingFaceFW/fineweb", ("sample-10BT", "train"), "9bb295d", "meta.text #1"
    ),
    "hf:a.b-c_d/e.f": HubName("a.b-c_d/e.f"),
}


@pytest.mark.parametrize("text", NAMES)
def test_names_of_the_hub(text: str) -> None:
    found = parse_hub_name(text)
    assert found == NAMES[text]
    assert parse_hub_name(str(found)) == found


@pytest.mark.parametrize(
    "text", ["hf:", "hf:a b", "hf:a/b/c", "hf:/b", "hf:a/", "hf://datasets/a/b", "hf:a/b@", "hf:a/b#", "hf:a/b:c:d:e",
             "hf:a/b:c:", "hf:a/b#c\nd"],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"hf:NAME\[:CONFIG\]\[:SPLIT\]\[@REVISION\]\[#FIELD\]"):
        parse_sources([text])


def test_sources_of_every_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "text")
    given = ["c4", "builtin", str(path), "hf:a/b:en@v1#body", "web=hf:a/b", "x.y-z=hf:c#d=e", "hf:c#d=f"]
    found = parse_sources(given)
    assert [one.label for one in found] == ["c4", "builtin", "a.txt", "a/b:en", "web", "x.y-z", "c"]
    assert [one.hub for one in found] == [
        C4_ON_THE_HUB, None, None, HubName("a/b", ("en",), "v1", "body"), HubName("a/b"), HubName("c", field="d=e"),
        HubName("c", field="d=f"),
    ]  # fmt: skip
    assert [one.shown for one in found] == ["c4", "builtin", "a.txt", *given[3:]]


def test_what_is_asked_for_twice_is_refused() -> None:
    with pytest.raises(UserError, match="hf:a/b is named twice"):
        parse_sources(["hf:a/b", "web=hf:a/b"])
    with pytest.raises(UserError, match="have the label web"):
        parse_sources(["web=hf:a/b", "web=hf:a/c"])

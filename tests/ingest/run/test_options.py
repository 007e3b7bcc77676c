"""What a run stores of its command: the options as given, apart from the facts; the report's command makes it again."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import duckdb
import numpy as np
import pytest

from rare_tokens import cli
from rare_tokens.analyses.report.data.provenance import command
from rare_tokens.common.parts import Manifest
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.run.pipeline import Workbench
from rare_tokens.ingest.run.request import Options, identify
from rare_tokens.ingest.text.documents import Document, document
from rare_tokens.ingest.text.hub_dataset import HubDataset
from rare_tokens.ingest.text.sources import HubName
from rare_tokens.warehouse.schema import migrations
from rare_tokens.warehouse.store.run_records import described
from tests.support.matched_texts import COMMON, RARE, documents, matched_counts, matched_tokenizer, write_corpus
from tests.support.tiny import DENSE, SUPPORTED, save_folder, tiny_corpus

PLAIN: dict[str, Any] = {"tokens": 48, "window": 16}
KINDS: dict[str, dict[str, Any]] = {
    "moments": {"effects": ("loss", "direct", "kl"), "tolerance": 2e-6, "seed": 3},
    "a revision, begin tokens, counts": {
        "revisions": ("step2",), "begin_token": True, "frequencies": "counts.npy", "device": "cpu", "ablation": "zero",
    },
    "dense below the last": {"layer": 0, "edit_scope": "position", "effects": ("loss", "frequency"), "device": "cpu"},
    "dense in the last": {"model": "gemma2"},
    "several corpora": {"corpus": ("news=one.jsonl", "two.jsonl"), "dtype": "bfloat16", "offload": "never"},
    "another field, a word list": {"corpus": ("content.ndjson",), "text_field": "body.raw", "frequencies": "wordfreq"},
    "matched contexts": {
        "model": "matched", "corpus": ("news=news.txt", "novel=novel.txt"), "contexts": "nc-matched",
        "frequencies": "matched.npy", "tokens": 600, "window": 24,
    },
    "trusted": {"trust": Trust(pickle=True, remote_code=True)},
}  # fmt: skip
OF_A_CONTEXT = {"tagger", "rare_tokens", "rare_tokens_met", "pairs", "matched_contexts"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, corpora and counts by the names that `KINDS` uses."""
    folder = tmp_path_factory.mktemp("inputs")
    for step in ("step1", "step2"):
        save_folder(folder / "steps" / step, SUPPORTED["gpt2"])
    save_folder(folder / "gemma2", DENSE["gemma2"])
    save_folder(folder / "matched", SUPPORTED["gpt2"])
    matched_tokenizer().save_pretrained(folder / "matched")
    for name, seed in (("one", 0), ("two", 1)):
        tiny_corpus(folder / f"{name}.jsonl", seed=seed)
    lines = [json.loads(line)["text"] for line in (folder / "one.jsonl").read_text().splitlines()]
    content = "".join(json.dumps({"body": {"raw": text}}) + "\n" for text in lines)
    (folder / "content.ndjson").write_text(content)
    for seed, name in enumerate(("news", "novel")):
        write_corpus(folder / f"{name}.txt", documents([*RARE, *COMMON], seed, count=60))
    np.save(folder / "counts.npy", np.arange(1, 301))
    np.save(folder / "matched.npy", matched_counts(matched_tokenizer()))
    return folder


def manifest_of(inputs: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> tuple[Options, Manifest]:
    """The options of a kind of run, and the manifest of the run that they make."""
    monkeypatch.chdir(inputs)
    given = PLAIN | {"model": "steps", "corpus": ("one.jsonl",)} | KINDS[kind]
    absolute = {"model": str(inputs / given["model"])}
    if given.get("frequencies", "wordfreq") != "wordfreq":
        absolute["frequencies"] = str(inputs / given["frequencies"])
    options = Options(**given | absolute)
    return options, Workbench().prepare(identify(options)[0]).manifest


def parsed(words: str) -> dict[str, Any]:
    """What the command's own parser makes of a command line."""
    program, script, name, *arguments = shlex.split(words)
    assert (program, script, name) == ("python", "cli.py", "ingest")
    return cli.cli.commands["ingest"].make_context("ingest", arguments).params


SLOW = ("another field, a word list",)  # the list takes seconds to pass through a tokenizer


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in KINDS]
)
def test_the_reports_command_is_parsed_by_the_command_and_gives_the_same_options(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    options, manifest = manifest_of(inputs, monkeypatch, kind)
    text = command(SimpleNamespace(row={"options": described(manifest)["options"]}))  # type: ignore[arg-type]
    assert str(inputs) not in text, "no folder of the machine"
    found = parsed(text)
    (found["model"],) = found["model"]  # that of one run
    trust = Trust(found["allow_pickle"], found["trust_remote_code"])
    names = [name for name in found if hasattr(options, name)]
    again = Options(**{name: found[name] for name in names}, trust=trust)
    assert again.given(*again.revisions) == manifest.options
    for name in names:
        if name not in ("model", "frequencies", "revisions"):
            assert getattr(again, name) == getattr(options, name), name
    assert again.trust == options.trust
    assert (again.model, again.revisions) == (Path(options.model).name, (manifest.revision,))


def test_every_option_that_shapes_a_run_is_stored(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is added to the command is stored too, or is about something else than the run."""
    others = {"series", "groups", "attention", "attention_layers", "head_ablation", "store", "executor", "ray_address"}
    others |= {"workers", "parts", "again", "dry_run", "publish_anyway"}
    everywhere = {parameter.name for parameter in cli.cli.commands["runs"].params}
    own = {item.name for item in cli.cli.commands["ingest"].params if isinstance(item, click.Option)} - everywhere
    _, manifest = manifest_of(inputs, monkeypatch, "moments")
    assert own - others == {"revisions" if name == "revision" else name for name in manifest.options}


@pytest.mark.parametrize("kind", ["moments", "dense below the last", "matched contexts"])
def test_what_was_found_or_chosen_is_no_option(inputs: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    _, manifest = manifest_of(inputs, monkeypatch, kind)
    wanted = {"path", "between", "layers", "device", "offloaded_bytes", "weights_hash"} | (
        OF_A_CONTEXT if kind == "matched contexts" else set()
    )
    assert manifest.facts.keys() == wanted
    assert manifest.facts["path"] == ("dense" if kind.startswith("dense") else "moments")
    assert bool(manifest.facts["between"]) == kind.startswith("dense")
    assert manifest.facts["device"] == "cpu"
    assert not manifest.facts.keys() & manifest.options.keys() - {"device"}


def test_a_stream_is_asked_for_by_its_name_and_found_at_a_commit(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(HubDataset):
        def documents(self, seed: int) -> Iterator[Document]:
            lines = (inputs / "one.jsonl").read_text(encoding="utf-8").splitlines()
            return (document(json.loads(line)["text"], self.label) for line in lines)

    def resolve(asked: HubName, label: str, field: str | None) -> HubDataset:
        return Stream(label, asked.name, "default", "train", "0" * 40, asked.field or field or "text")

    monkeypatch.setattr("rare_tokens.ingest.text.corpus.resolve", resolve)
    sources = ("hf:some/set#body", "web=hf:some/other@v1")
    options = Options(str(inputs / "steps"), corpus=sources, text_field="content", **PLAIN)
    manifest = Workbench().prepare(identify(options)[0]).manifest
    assert manifest.options["corpus"] == list(sources)
    assert manifest.corpus == "some/set + web"
    commit = "0" * 40
    assert manifest.facts["streams"] == [
        f"hf:some/other:default:train@{commit}#content", f"hf:some/set:default:train@{commit}#body",
    ]  # fmt: skip


def test_what_older_runs_mixed_is_told_apart_when_their_warehouse_is_migrated() -> None:
    before = {
        "model": "tiny", "corpus": ["news=news.txt"], "frequencies": "counted over news", "tokens": 64, "layer": 0,
        "device": "cpu", "path": "dense; layer 0 of 2 is below the last", "tagger": "HanTa 1.2", "pairs": 12,
        "begin_token": True, "effects": ["loss", "kl"], "tolerance": 1e-6,
    }  # fmt: skip
    names = [name for _, name, _ in migrations.known()]
    *older, newest = [text for _, _, text in migrations.known()[: names.index("run_facts") + 1]]
    with duckdb.connect() as con:
        for text in older:
            con.execute(text)
        rows = [(1, json.dumps(before)), (2, json.dumps({"tokens": 3, "frequencies": "counts.npy"})), (3, None)]
        for key, options in rows:
            con.execute(
                "insert into store.run (run_key, run_id, model, revision, status, options)"
                " values ($key, $key, 'tiny', 'main', 'published', $options)",
                {"key": key, "options": options},
            )
        con.execute(newest)
        found = con.execute("select options, facts from store.run order by run_key").fetchall()
    options, facts = (json.loads(value) for value in found[0])
    assert facts == {
        "path": "dense", "between": ["layer 0 of 2 is below the last"], "device": "cpu", "tagger": "HanTa 1.2",
        "pairs": 12,
    }  # fmt: skip
    assert options == {name: value for name, value in before.items() if name not in facts or name == "device"} | {
        "frequencies": "corpus"
    }
    assert parsed(command(SimpleNamespace(row={"options": found[0][0]})))["effects"] == ("loss", "kl")  # type: ignore[arg-type]
    assert [json.loads(value) for value in found[1]] == [{"tokens": 3, "frequencies": "counts.npy"}, {}]
    assert found[2] == (None, None)

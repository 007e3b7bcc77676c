"""Data sets of the hub, streamed from one on the loopback interface: which rows come, and what is refused."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rare_tokens.ingest.text.corpus import Corpus
from rare_tokens.ingest.text.hub_dataset import HubDataset
from tests.conftest import REPOSITORY
from tests.support.fake_hub import COMMIT, OTHER_COMMIT, fake_hub, rows

# `c4`, a data set of the hub like any other, is streamed in the quick run (tests/ingest/text/test_corpus.py).
pytestmark = pytest.mark.slow


def card(configs: dict[str, dict[str, str]], default: str | None = None) -> bytes:
    """The head of a README.md that says which files each split of each configuration has."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", *(["  default: true"] if name == default else []), "  data_files:"]
        lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
    return "\n".join([*lines, "---", ""]).encode()


def parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


TURNS = [{"role": "user", "content": "Hello?"}]
HUB = {
    "stas/plain": {"README.md": b"# No head\n", "train.jsonl": rows(*({"text": f"t{n}"} for n in range(5)))},
    "some/two": {
        "README.md": card({"en": {"train": "en/train.jsonl", "test": "en/test.jsonl"}, "de": {"train": "de.jsonl"}}),
        "en/train.jsonl": rows({"text": "e1", "meta": {"title": "T"}}, {"text": None, "meta": {"title": "U"}}),
        "en/test.jsonl": rows({"text": "e3", "meta": {"title": "V"}}),
        "de.jsonl": rows({"text": "d1"}),
    },
    "some/default": {
        "README.md": card(
            {"main": {"train": "a.jsonl", "half": "b.jsonl"}, "half2": {"test": "c.jsonl"}}, default="main"
        ),
        "a.jsonl": rows({"content": "c1", "n": 1}, {"content": None, "n": 2}, {"content": " ", "n": 3}),
        "b.jsonl": rows({"content": "h1", "n": 1}),
        "c.jsonl": rows({"text": "x"}),
    },
    "some/table": {"train.parquet": parquet({"meta": [{"body": "p1"}, None, {"body": "p2"}], "n": [1, 2, 3]})},
    "some/chat": {"data/train.jsonl": rows({"messages": TURNS})},
    "some/pile": {"data/train.jsonl.zst": zstd(rows({"text": "z1"}, {"text": "z2"}))},
    "some/script": {"script.py": b"import datasets\n"},
    "some/numbers": {"train.jsonl": rows({"text": 1})},
    "some/broken": {"train.jsonl": b'{"text": \n{{{\n'},
    "some/nothing": {"README.md": b""},
}
READ: dict[str, tuple[list[str], list[str]]] = {
    "hf:stas/plain": ([f"t{n}" for n in range(5)], [f"hf:stas/plain:default:train@{COMMIT}"]),
    "hf:some/two:en": (["e1"], [f"hf:some/two:en:train@{COMMIT}"]),
    "hf:some/two:en:test@v1#meta.title": (["V"], [f"hf:some/two:en:test@{OTHER_COMMIT}#meta.title"]),
    "hf:some/default#content": (["c1"], [f"hf:some/default:main:train@{COMMIT}#content"]),
    "hf:some/default:half#content": (["h1"], [f"hf:some/default:main:half@{COMMIT}#content"]),
    "hf:some/default::half#content": (["h1"], [f"hf:some/default:main:half@{COMMIT}#content"]),
    "hf:some/default --text-field content": (["c1"], [f"hf:some/default:main:train@{COMMIT}#content"]),
    "hf:some/table#meta.body": (["p1", "p2"], [f"hf:some/table:default:train@{COMMIT}#meta.body"]),
    "hf:some/pile": (["z1", "z2"], [f"hf:some/pile:default:train@{COMMIT}"]),
    "b=hf:some/two:de a=hf:some/pile": (
        ["d1", "z1", "z2"], [f"hf:some/pile:default:train@{COMMIT}", f"hf:some/two:de:train@{COMMIT}"]
    ),
}  # fmt: skip
REFUSED = {
    "hf:some/two": "several configurations and no default one. Name one of en, de: --corpus hf:some/two:en.",
    "hf:some/two:fr": "has no configuration or split fr. Name one of en, de",
    "hf:some/two:fr:train": "has no configuration fr. Name one of en, de",
    "hf:some/two:en:dev": "has no split dev in its configuration en. It has train, test: --corpus hf:some/two:en:train",
    "hf:some/default:half2": "has no split train in its configuration half2. It has test: ",
    "hf:some/default": "has no field `text`. Name the one that holds the text: --corpus "
    "hf:some/default:main:train#content. String fields: `content`.",
    "hf:some/chat": "The data set some/chat holds chat records (`messages` is a list of turns)",
    "hf:some/numbers": "the column `text` holds no strings but int64",
    "hf:some/script": "comes as a script, which `datasets` no longer runs. Try its converted copy, "
    "--corpus hf:some/script@refs/convert/parquet",
    "hf:some/broken": "cannot be read as a stream (JSON parse error",
    "hf:some/nothing": "load_dataset(…).save_to_disk(FOLDER)",
    "hf:no/such": "The hub has no data set no/such, or shows it only to others.",
    "hf:some/two:en@v9": "The data set some/two has no revision v9",
    "hf:some/two:de x=hf:some/two:de:train": "is named twice",
}
ASK = """
import json, sys
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import open_corpus
found = {}
for words in json.loads(sys.argv[1]):
    sources, _, field = words.partition(" --text-field ")
    try:
        corpus = open_corpus(sources.split(), field or None)
        documents = [[one.text, one.domain] for one in corpus.documents(0)]
        found[words] = [documents, [stream.asked for stream in corpus.streams], corpus.identity]
    except UserError as error:
        found[words] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process makes of every source: the hub's address is read when its client is imported."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with fake_hub(repositories=HUB) as endpoint:
        here = tmp_path_factory.mktemp("hub")
        (here / "some" / "two").mkdir(parents=True)  # is no data set of the hub, and not taken for one
        variables |= {"HF_HOME": str(here), "PYTHONPATH": str(REPOSITORY), "HF_ENDPOINT": endpoint}
        command = [sys.executable, "-c", ASK, json.dumps([*READ, *REFUSED])]
        done = subprocess.run(
            command, env=variables, cwd=here, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("words", READ)
def test_what_is_read(answers: dict[str, Any], words: str) -> None:
    texts, streams = READ[words]
    documents, asked, _ = answers[words]
    assert sorted(text for text, _ in documents) == texts
    assert asked == streams


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(answers: dict[str, Any], words: str) -> None:
    said = answers[words]
    assert isinstance(said, str)
    assert REFUSED[words] in said
    assert len(said) <= 600
    assert "\n" not in said


def test_domains_are_labels_or_the_names_as_written(answers: dict[str, Any]) -> None:
    assert {domain for _, domain in answers["hf:some/two:en"][0]} == {"some/two:en"}
    assert {(text[0], domain) for text, domain in answers["b=hf:some/two:de a=hf:some/pile"][0]} == {
        ("d", "b"),
        ("z", "a"),
    }


def test_commit_and_field_are_in_the_identity_and_how_it_was_asked_for_is_not(answers: dict[str, Any]) -> None:
    def identity(*stream: str) -> str:
        return Corpus("x", iter(()), [HubDataset("label", *stream)]).identity

    assert answers["hf:some/two:en"][2] == identity("some/two", "en", "train", COMMIT)
    assert answers["hf:some/two:en:test@v1#meta.title"][2] == identity(
        "some/two", "en", "test", OTHER_COMMIT, "meta.title"
    )
    same = [words for words in READ if READ[words][1] == [f"hf:some/default:main:half@{COMMIT}#content"]]
    assert len({answers[words][2] for words in same}) == 1
    kinds = [("a", "b", "c", "d"), ("a", "b", "c", "e"), ("a", "b", "c", "d", "body"), ("a", "b", "f", "d")]
    assert len({identity(*kind) for kind in kinds}) == 4
    assert identity("a", "b", "c", "d") == identity("a", "b", "c", "d", "text")


def test_several_streams_have_one_identity_in_any_order() -> None:
    one, two = HubDataset("x", "a", "b", "c", "d"), HubDataset("y", "e", "b", "c", "d")
    first, second = Corpus("x + y", iter(()), [one, two]), Corpus("y + x", iter(()), [two, one])
    assert first.identity == second.identity != Corpus("x", iter(()), [one]).identity
    assert first.labelled_identity == second.labelled_identity
    assert [stream.name for stream in second.streams] == ["a", "e"]


def test_the_identity_of_c4_stays_over_releases(tmp_path: Path) -> None:
    """Runs that are published have it."""
    stream = HubDataset("c4", "allenai/c4", "en", "train", COMMIT)
    corpus = Corpus("c4", iter(()), [stream])
    assert corpus.identity == "a6db57232bedf7c1e8400930a7a93209d67967b13f7ded6de8b013765d29204d"
    assert corpus.labelled_identity == "bba297ae573a0195b4014152aa0846656b8d167b5ec80bbc81c1c95ddf72fa20"

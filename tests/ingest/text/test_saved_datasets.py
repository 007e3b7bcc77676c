"""Folders that `datasets` wrote, by itself: what of them is read, and what is refused."""

import json
from pathlib import Path

import datasets
import pytest

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import open_corpus
from tests.support.corpora import refusal, texts_of, write


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def data(*texts: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": list(texts), "n": list(range(len(texts)))})


def found(path: Path, field: str | None = None) -> list[str]:
    return sorted(texts_of(open_corpus([str(path)], field)))


def test_what_save_to_disk_wrote_is_read_without_computations_on_it(tmp_path: Path) -> None:
    data(*"abcdef").save_to_disk(tmp_path / "saved", num_shards=3)
    again = datasets.load_from_disk(str(tmp_path / "saved"))
    again.map(lambda row: {"text": row["text"] * 2})
    assert list((tmp_path / "saved").glob("cache-*.arrow")), "the case that this is about"
    assert found(tmp_path / "saved") == list("abcdef")
    assert found(tmp_path) == list("abcdef")
    data(*"abcdef").filter(lambda row: row["n"] > 3).save_to_disk(tmp_path / "chosen")
    assert found(tmp_path / "chosen") == ["e", "f"]


def test_one_split_is_read_and_of_several_one_must_be_named(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": data("a"), "test": data("b")}).save_to_disk(tmp_path / "two")
    datasets.DatasetDict({"test": data("b")}).save_to_disk(tmp_path / "one")
    assert found(tmp_path / "one") == ["b"]
    assert found(tmp_path / "two" / "train") == ["a"]
    said = refusal(tmp_path / "two")
    assert f"holds the splits train, test, each in a folder of its own. Name one: --corpus {tmp_path}/two/train" in said
    assert "holds the splits train, test" in refusal(tmp_path), "a folder above it is no way around"


def test_the_cache_of_one_split_is_read_and_of_several_one_must_be_named(tmp_path: Path) -> None:
    lines = write(tmp_path / "lines" / "a.jsonl", '{"text": "a"}\n{"text": "b"}\n')
    for name, splits in (("one", ["train"]), ("two", ["train", "test"])):
        files = {split: str(lines) for split in splits}
        datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / name))
    assert found(tmp_path / "one") == ["a", "b"]
    said = refusal(tmp_path / "two")
    assert "caches the splits train, test side by side" in said
    assert found(Path(said.partition("--corpus ")[2].removesuffix("."))) == ["a", "b"]


def test_a_saved_dataset_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    data(*"ab").save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
    assert "lacks its file data-00001-of-00002.arrow" in refusal(tmp_path / "saved")
    data(*"ab").save_to_disk(tmp_path / "indexed")
    state = tmp_path / "indexed" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    assert "a choice of rows by an index. Save it again: flatten_indices()" in refusal(tmp_path / "indexed")


def test_its_columns_are_fields_like_any_other(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"body": ["One."], "n": [1]}).save_to_disk(tmp_path / "saved")
    assert "--text-field body" in refusal(tmp_path / "saved")
    assert found(tmp_path / "saved", "body") == ["One."]


@pytest.mark.parametrize("content", ["[]", "{", '{"splits": 7}', '{"splits": ["../..", "**"]}', '{"_data_files": 3}'])
@pytest.mark.parametrize("name", ["dataset_dict.json", "state.json", "dataset_info.json"])
def test_files_of_these_names_that_are_something_else_do_no_harm(tmp_path: Path, name: str, content: str) -> None:
    data("a").save_to_disk(tmp_path)
    write(tmp_path / name, content)
    assert found(tmp_path) == ["a"]


def test_damage_to_an_arrow_file_is_refused_or_harmless(tmp_path: Path) -> None:
    data(*(f"text {number}" for number in range(50))).save_to_disk(tmp_path / "saved")
    (path,) = (tmp_path / "saved").glob("*.arrow")
    whole = path.read_bytes()
    said: list[str] = []
    for place in range(0, len(whole), max(1, len(whole) // 120)):
        path.write_bytes(whole[:place] + b"\xff\xff\xff\x7f" + whole[place + 4 :])
        try:
            assert all(text.encode() for text in found(path))
        except UserError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all(str(path) in one for one in said)

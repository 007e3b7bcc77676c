"""Damaged configurations, tokenizers and weights are taken or refused in words, never end as a bug."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.robustness.model_files import BYTES, CHANGES, FILES, KINDS, ModelFiles

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelFiles]:
    made = ModelFiles(tmp_path_factory.mktemp("models"))
    yield made
    print(json.dumps(dict(made.ends)))


def tried(models: ModelFiles, file: str, examples: int) -> None:
    @seed(0)
    @settings(ANY, max_examples=examples)
    @given(st.sampled_from(KINDS), CHANGES, BYTES)
    def change(kind, change, damage) -> None:
        models.changed(file, kind, change, damage)

    change()


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("file", FILES)
def test_a_changed_file_is_taken_or_refused(models: ModelFiles, file: str) -> None:
    tried(models, file, 60)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_thousand_changes_of_each_file(models: ModelFiles, file: str) -> None:
    tried(models, file, 1000)

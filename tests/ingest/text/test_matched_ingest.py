"""`ingest --contexts nc-matched`, from the command to the marts: its run, its groups, and the reasons for none."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.common.parts import parts_root
from tests.support.commands import exit_code
from tests.support.matched_texts import COMMON, RARE, documents, matched_counts, matched_tokenizer, write_corpus
from tests.support.tiny import SUPPORTED, tiny_model

DATABASE = "rare_tokens.duckdb"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matched")
    tokenizer = matched_tokenizer()
    tiny_model(SUPPORTED["gpt2"]).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    np.save(folder / "counts.npy", matched_counts(tokenizer))
    np.save(folder / "small.npy", matched_counts(tokenizer, scale=0.1))
    write_corpus(folder / "news.txt", documents([*RARE, *COMMON], 0))
    write_corpus(folder / "novel.txt", documents([*RARE, *COMMON], 1))
    write_corpus(folder / "few.txt", documents([*RARE[:4], *COMMON], 2))
    return folder


def asked(inputs, *corpora, **changes):
    options = {"--model": inputs / "model", "--contexts": "nc-matched", "--frequencies": inputs / "counts.npy"}
    options |= {"--window": 16} | changes
    given = [part for pair in options.items() for part in pair]
    for corpus in corpora or (f"news={inputs / 'news.txt'}", f"literature={inputs / 'novel.txt'}"):
        given += ["--corpus", corpus]
    return ["ingest", *given, "--quiet", "--json"]


@pytest.fixture(scope="module")
def once(inputs, tmp_path_factory):
    """The warehouse of a published run of matched contexts, to be copied."""
    path = tmp_path_factory.mktemp("once") / DATABASE
    assert exit_code(*asked(inputs), "--warehouse", path) == 0
    return path


@pytest.fixture(scope="module")
def ingested(once):
    with warehouse.open(once) as opened:
        yield opened


def test_the_run_holds_its_positions_and_their_effects(ingested):
    (run,) = ingested.dim_run().iter_rows(named=True)
    context = ingested.position_context().sort("position_id")
    assert (run["status"], run["contexts"], run["window_length"]) == ("published", "nc-matched", 1)
    assert run["positions"] == len(context) > 100
    assert ingested.fct_effect().height == run["positions"] * run["neurons"]
    options, facts = json.loads(run["options"]), json.loads(run["facts"])
    assert facts["tagger"].startswith(("HanTa ", "spaCy "))
    assert (facts["pairs"], facts["matched_contexts"]) == (context["pair_id"].n_unique(), len(context) / 2)
    assert options["corpus"] == ["news=news.txt", "literature=novel.txt"]
    assert facts["tagger"] in json.loads(run["identity"])["contexts"]
    assert set(context["domain"]) == {"news", "literature"} == set(ingested.dim_document()["domain"])
    targets = ingested.dim_position().sort("position_id")["target_token_id"]
    assert context["token_id"].to_list() == targets.to_list()
    frequency = ingested.token_frequency().select("token_id", "frequency")
    of_group = (
        context.join(frequency, on="token_id")
        .group_by("token_group")
        .agg(pl.col("frequency").min().alias("least"), pl.col("frequency").max().alias("most"))
    )
    limits = {name: (least, most) for name, least, most in of_group.iter_rows()}
    assert limits["rare"][1] < 1.776e-7
    assert limits["common"][0] > 1.776e-5


def test_the_mean_activation_is_over_the_matched_positions(ingested):
    facts = ingested.fct_effect().group_by("neuron").agg(pl.col("activation").cast(pl.Float64).mean()).sort("neuron")
    stored = ingested.dim_neuron().sort("neuron")["mean_activation"].to_numpy()
    assert stored == pytest.approx(facts["activation"].to_numpy(), rel=1e-9, abs=1e-9)


def test_the_marts_have_the_preset(ingested):
    grouped = ingested.position_group(preset="nc-matched").sort("position_id")
    context = ingested.position_context().sort("position_id")
    assert grouped["token_group"].to_list() == context["token_group"].to_list()
    facts = ingested.fct_effect().join(context, on="position_id")
    expected = facts.group_by("token_group", "neuron").agg(
        influence=pl.col("delta_loss").cast(pl.Float64).abs().mean(), mean=pl.col("delta_loss").cast(pl.Float64).mean()
    )
    found = ingested.neuron_influence(preset="nc-matched")
    both = found.join(expected, on=["token_group", "neuron"])
    assert len(both) == len(found) == 2 * 80
    assert both["influence"].to_numpy() == pytest.approx(both["influence_right"].to_numpy(), abs=1e-10)
    assert both["mean_delta_loss"].to_numpy() == pytest.approx(both["mean"].to_numpy(), abs=1e-10)
    fits = ingested.power_law_fit(preset="nc-matched")
    assert set(fits["token_group"]) == {"rare", "common"}
    assert fits["reason"].to_list() == ["80 neurons with an influence above 0; a power law needs 150"] * 2
    assert ingested.neuron_deviation(preset="nc-matched").height == 2 * 80
    sizes = ingested.token_group_size(preset="nc-matched")
    assert sizes["positions"].to_list() == [len(context) // 2] * 2
    assert sizes["tokens"].to_list() == [context["pair_id"].n_unique()] * 2
    assert sizes["reason"].to_list() == [None, None]


def test_the_bootstrap_draws_pairs_not_positions(ingested):
    """`agg_effect` sums over a pair's contexts, which are not independent, where a sample's windows would be."""
    context = ingested.position_context()
    facts = ingested.fct_effect(neuron=[0, 7]).join(context, on="position_id")
    expected = facts.group_by("neuron", "pair_id", "token_group").agg(
        pl.len().alias("positions"), pl.col("delta_loss").cast(pl.Float64).abs().sum().alias("sum")
    )
    cells = ingested.agg_effect(neuron=[0, 7])
    found = cells.group_by("neuron", "window_id", "matched_group").agg(
        pl.col("positions").sum(), pl.col("abs_delta_sum").sum()
    )
    both = expected.join(
        found, left_on=["neuron", "pair_id", "token_group"], right_on=["neuron", "window_id", "matched_group"]
    )
    assert len(both) == len(expected) == len(found)
    assert both["positions"].to_list() == both["positions_right"].to_list()
    assert both["sum"].to_numpy() == pytest.approx(both["abs_delta_sum"].to_numpy(), abs=1e-9)


def test_asked_again_it_is_there_and_a_label_makes_another_run(commands, inputs, once):
    shutil.copy(once, commands.folder)
    (run_id,) = commands.runs()
    assert "already published" in commands(*[part for part in asked(inputs) if part != "--quiet"]).err
    labelled = commands(*asked(inputs, f"web={inputs / 'news.txt'}", f"literature={inputs / 'novel.txt'}"))
    assert json.loads(labelled.out)[0]["run_id"] != run_id


@pytest.mark.slow
def test_analyze_and_check_know_the_preset(commands, inputs, once):
    shutil.copy(once, commands.folder)
    checked = commands("check", "--json")
    assert checked.code == 0, checked.err
    analysed = commands("analyze", "--quiet")
    assert analysed.code == 0, analysed.err
    with warehouse.open(commands.folder / DATABASE) as opened:
        assert set(opened.regime_decision(preset="nc-matched")["token_group"]) == {"rare", "common"}
        pairs = opened.position_context()["pair_id"].n_unique()
        windows = opened.influence_interval(preset="nc-matched", token_group="rare")["windows"].drop_nulls().unique()
        assert windows.to_list() == [pairs]
        assert set(opened.graph_modularity()["preset"]) == {"nc-matched"}
        assert set(opened.neuron_group()["preset"]) == {"es", "nc", "nc-matched"}
        assert opened.threshold_sensitivity(preset="nc-matched").is_empty(), "it has no threshold"


REASONS = {
    "source too small": ({"--frequencies": "small.npy"}, (), "1,999,996 tokens; recognising tokens rarer"),
    "counted over the corpus": ({"--frequencies": "corpus"}, (), "needs 10,000,000. Give the counts of a larger one"),
    "too few pairs": ({}, ("few.txt",), "of the 10 needed. 4 of 13 rare tokens were found"),
}


@pytest.mark.parametrize("case", REASONS)
def test_an_empty_group_has_its_reason(commands, inputs, case):
    changes, corpora, says = REASONS[case]
    changes = {name: inputs / value if value.endswith(".npy") else value for name, value in changes.items()}
    ended = commands(*asked(inputs, *(inputs / name for name in corpora), **changes))
    assert ended.code == 0, ended.err
    (run,) = json.loads(ended.out)
    assert run["status"] == "missing"
    assert says in run["status_reason"]
    with warehouse.open(commands.folder / DATABASE) as opened:
        rows = opened.token_group_size().sort("token_group").to_dicts()
    assert [(row["preset"], row["token_group"], row["positions"]) for row in rows] == [
        ("nc-matched", "common", 0),
        ("nc-matched", "rare", 0),
    ]
    assert all(says in row["reason"] for row in rows)
    assert not parts_root(commands.folder / DATABASE).is_dir() or not list(
        parts_root(commands.folder / DATABASE).glob("*/manifest.json")
    )
    assert commands("delete", run["run_id"]).code == 0
    with warehouse.open(commands.folder / DATABASE) as opened:
        assert opened.token_group_size().is_empty()


def test_the_reason_is_told(commands, inputs):
    ended = commands(*[part for part in asked(inputs, inputs / "few.txt") if part != "--quiet"])
    assert "nothing to measure. Too few pairs" in ended.err


BAD = {
    "unknown contexts": ({"--contexts": "matched"}, (), "'matched' is not one of"),
    "one token": ({"--tokens": 1}, (), "takes two positions"),
    "no window": ({"--window": 0}, (), "at least one position"),
    "one label twice": ({}, ("news={}/news.txt", "news={}/novel.txt"), "label news"),
    "one corpus twice": ({}, ("news={}/news.txt", "web={}/news.txt"), "named twice"),
    "labelled corpus missing": ({}, ("news={}/nothing.txt",), "nothing.txt"),
    "counts of another tokenizer": ({"--frequencies": "17.npy"}, (), "17 counts"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused(commands, inputs, case):
    np.save(commands.folder / "17.npy", np.ones(17, np.int64))
    changes, corpora, says = BAD[case]
    ended = commands(*asked(inputs, *(corpus.format(inputs) for corpus in corpora), **changes))
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert commands.runs() == []


def test_a_dry_run_says_the_most_it_can_take(commands, inputs):
    ended = commands(*asked(inputs, **{"--tokens": 500}), "--dry-run")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)
    assert (row["positions"], row["fact_rows"]) == (500, 500 * 80)


@pytest.mark.slow
def test_real_corpora_as_domains(commands, inputs, real_inputs):
    """The GPT-2 tokenizer with its real counts on three domains: some twenty rare tokens occur in all."""
    from transformers import AutoTokenizer, GPT2Config

    shape = {"n_embd": 32, "n_inner": 80, "n_layer": 2, "n_head": 4, "n_positions": 64}
    folder = commands.folder / "gpt2"
    tiny_model(GPT2Config(vocab_size=50257, bos_token_id=50256, eos_token_id=50256, **shape)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / "gpt2").save_pretrained(folder)
    corpora = {"web": "c4-sample", "literature": "novels", "encyclopedia": "wikitext-2"}
    given = [f"{label}={real_inputs / 'corpora' / name}" for label, name in corpora.items()]
    counts = real_inputs / "frequencies" / "gpt2-openwebtext.npy"
    ended = commands(*asked(inputs, *given, **{"--model": folder, "--frequencies": counts, "--window": 64}))
    assert ended.code == 0, ended.err
    with warehouse.open(commands.folder / DATABASE) as opened:
        context = opened.position_context().join(opened.dim_token(), on="token_id")
        assert 10 <= context["pair_id"].n_unique() <= 24
        assert set(context["domain"]) == set(corpora)
        length = context.group_by("pair_id", "token_group").agg(
            pl.col("text").str.strip_chars().str.len_chars().first()
        )
        wide = length.pivot("token_group", index="pair_id", values="text")
        assert (wide["rare"].cast(pl.Int64) - wide["common"].cast(pl.Int64)).abs().max() <= 1
        assert opened.neuron_influence(preset="nc-matched").height == 2 * 80

"""What the report reads: the relations it asks for, and the contents of its neuron cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rare_tokens.warehouse.client.opened import Warehouse

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

# By the name of the report's input.
_QUERIES = {
    "influence": """
        select influence.*, settled_role, mean_delta_low, mean_delta_high
        from neuron_influence as influence join neuron_sign using (run_id, preset, token_group, neuron)
        where run_id in $runs
    """,
    "intervals": "from influence_interval where run_id in $runs and neuron is null",
    "neuron_groups": """
        from neuron_group_summary where run_id in $runs order by run_id, preset, group_name, k
    """,
    "tokens": """
        select run_id, neuron, direction, rank, token_shown(text, bytes) as text
        from neuron_token join dim_run using (run_id) join dim_token using (tokenizer_id, token_id)
        where run_id in $runs
    """,
    "quality": """
        select
            run_id, suite, relation || ': ' || expectation as check_name, success,
            observed::varchar as observed, expected,
            checked_by
        from quality_result
        where run_id in $runs
        order by run_id, suite, relation, expectation
    """,
}
# p of `values` as the page gives it: of one run after the correction within it, of several over all of them together.
_VALUES = """
    select
        value.* exclude (p_value), test.p_holm as p_value, test.p_value as p_alone, test.tests,
        test.reason as p_reason
    from measured_value as value
    left join {tests} as test
        on value.run_id = test.run_id and value.preset = test.preset and value.token_group = test.token_group
        and value.analysis = test.analysis and value.statistic = test.statistic and value.setting = test.setting
        and value.measured_group = test.group_name and value.k = test.k and test.test = 'control'
    where value.run_id in $runs
"""
_CARDS = {
    "contexts": "from neuron_context($run, $neuron)",
    "targets": """
        from neuron_target($run, $neuron)
        qualify row_number() over (order by mean_delta_loss desc, token_id) <= 6
            or row_number() over (order by mean_delta_loss, token_id) <= 6
    """,
    "activations": "from neuron_activation($run, $neuron)",
    "passages": "from neuron_top_activation($run, $neuron)",
    "moments": "from neuron_moments($run, $neuron)",
}


def report_frames(
    path: Path, runs: Sequence[str], relations: Mapping[str, str], *, wait: float = 0.0
) -> "dict[str, pl.DataFrame]":
    """What a report shows about `runs`, by the name of the input.

    Args:
        path: the warehouse.
        runs: the report's runs.
        relations: the relation behind each input, by the input's name; read whole for the runs.
        wait: seconds to wait for a process that is writing.

    Returns:
        These, and influence and groups with their signs, the curves' intervals, the neurons' tokens, the checks'
        results, and the papers' values with their tests, corrected over all `runs`.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    values = _VALUES.format(tests="group_test_across($runs)" if len(runs) > 1 else "group_test")
    with Warehouse(path, wait=wait) as opened:
        frames = {name: opened.read(relation, run_id=list(runs)) for name, relation in relations.items()}
        queries = _QUERIES | {"values": values}
        return frames | {name: opened.sql(query, runs=list(runs)) for name, query in queries.items()}


def card_frames(path: Path, neurons: Mapping[str, Sequence[int]], *, wait: float = 0.0) -> "dict[str, pl.DataFrame]":
    """What cards show about some neurons of each run, by input name: contexts, targets, activations, their spread.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    import polars as pl

    pairs = [(run, neuron) for run, chosen in neurons.items() for neuron in chosen]
    if not pairs:
        return {}
    with Warehouse(path, wait=wait) as opened:
        return {
            name: pl.concat([opened.sql(query, run=run, neuron=neuron) for run, neuron in pairs])
            for name, query in _CARDS.items()
        }


_NEURON = {
    "influence": """
        select influence.*, settled_role, mean_delta_low, mean_delta_high
        from neuron_influence as influence join neuron_sign using (run_id, preset, token_group, neuron)
        where run_id = $run and neuron = $neuron
    """,
    "deviations": "from neuron_deviation where run_id = $run and neuron = $neuron",
    "fits": "from power_law_fit where run_id = $run",
    "specificity": "from neuron_specificity where run_id = $run and neuron = $neuron order by preset, matching",
    "tokens": """
        select run_id, neuron, direction, rank, token_shown(text, bytes) as text, logit
        from neuron_token join dim_run using (run_id) join dim_token using (tokenizer_id, token_id)
        where run_id = $run and neuron = $neuron
        order by direction desc, rank
    """,
    "neighbours": "from neuron_neighbour($run, $neuron)",
}


def neuron_frames(path: Path, run: str, neuron: int, *, wait: float = 0.0) -> "dict[str, pl.DataFrame]":
    """What is stored of one neuron of a run, by the name of the report's input, besides `card_frames`.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    with Warehouse(path, wait=wait) as opened:
        keys = {
            name: {"run": run} | ({"neuron": neuron} if "$neuron" in query else {}) for name, query in _NEURON.items()
        }
        return {name: opened.sql(query, **keys[name]) for name, query in _NEURON.items()}


def output_weights(path: Path, run: str, *, wait: float = 0.0) -> "np.ndarray":
    """The output weights of a run's layer, shape (N, d), float32.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    with Warehouse(path, wait=wait) as opened:
        rows = opened.sql("select neuron, w_out from neuron_weight where run_id = $run order by neuron", run=run)
    return rows["w_out"].explode().to_numpy().reshape(len(rows), -1)


def same_positions(path: Path, runs: Sequence[str], *, wait: float = 0.0) -> list[list[str]]:
    """The runs measured at the same positions of the same text, in sets of two or more, in the order given.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    query = """
        select run_id, hash(tokenizer_id, list((input_token_id, target_token_id) order by position_id)) as text
        from dim_position join dim_run using (run_id)
        where run_id in $runs
        group by run_id, tokenizer_id
        order by list_position($runs, run_id)
    """
    with Warehouse(path, wait=wait) as opened:
        rows = opened.sql(query, runs=list(runs)).rows()
    sets: dict[int, list[str]] = {}
    for run_id, text in rows:
        sets.setdefault(text, []).append(run_id)
    return [members for members in sets.values() if len(members) > 1]

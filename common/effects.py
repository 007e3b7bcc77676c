"""The effects of an ablation that can be measured per pair of neuron and position: their names and columns.

To add one: a row here, its formulas in ``ingest/ablation/formulas/effects.py``, and its definition in
``ingest/ablation/reference.py``. Everything else (command, parts, memory, all paths) follows from these. One of them is
no effect of an edit as a whole but the derivative at its start: the attribution, which has modules of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass

from rare_tokens.common.errors import UserError

LOSS, ATTRIBUTION = "loss", "attribution"


@dataclass(frozen=True)
class Effect:
    """One effect; its values are in nats.

    Attributes:
        name: its name in `--effects`.
        column: its column in ``fct_effect``. Only the loss's is in every run; the others read as NULL if absent.
        needs_counts: whether it needs the tokens' counts.
        in_words: what it is, for the help of `--effects`.
    """

    name: str
    column: str
    needs_counts: bool = False
    in_words: str = ""


EFFECTS = {
    effect.name: effect
    for effect in (
        Effect(LOSS, "delta_loss", in_words="change of the loss, always stored"),
        Effect("direct", "direct_delta_loss", in_words="the same with the final norm's scale kept"),
        Effect("entropy", "delta_entropy", in_words="change of the prediction's entropy"),
        Effect("kl", "delta_kl", True, "change of its divergence from token frequency"),
        Effect(
            "frequency",
            "frozen_frequency_delta_loss",
            True,
            "change of the loss but for token frequency",
        ),
        Effect(ATTRIBUTION, "attributed_delta_loss", in_words="what the gradient says of it"),
    )
}


def chosen_effects(names: Collection[str]) -> tuple[str, ...]:
    """The named effects in the table's order; the loss is always among them, because every mart needs it.

    Raises:
        UserError: a name is unknown.
    """
    if unknown := sorted(set(names) - EFFECTS.keys()):
        raise UserError(f"--effects {','.join(unknown)}: unknown. Choose from {', '.join(EFFECTS)}.")
    return tuple(name for name in EFFECTS if name == LOSS or name in names)

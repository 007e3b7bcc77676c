"""The groups in which relations are listed: by the folder of their SQL file, after those to start with."""

from collections.abc import Iterable

from rare_tokens.warehouse.schema.relations import Relation

START, FUNCTIONS = "start here", "functions that the SQL uses"
START_WITH = (
    "dim_run",
    "run_warning",
    "neuron_profile",
    "influence_at",
    "neuron_context",
    "token_neuron",
    "token_group_size",
)
# Folders below `sql/marts`, in the order in which their groups are listed; a macro without columns is a function.
GROUPS = {
    START: (),
    "facts": ("dimensions", "facts"),
    "one neuron": ("neurons",),
    "rankings": ("influence", "macros"),
    "analyses": ("groups", "coordination", "specificity", "agreement", "series"),
    "attention": ("attention",),
    FUNCTIONS: (),
}
_OF_FOLDER = {folder: group for group, folders in GROUPS.items() for folder in folders}


def group_of(relation: Relation) -> str:
    """The group of a relation."""
    if relation.name in START_WITH:
        return START
    if relation.is_macro and not relation.columns:
        return FUNCTIONS
    return _OF_FOLDER[relation.folder]


def grouped(relations: Iterable[Relation]) -> list[Relation]:
    """Relations group by group, those to start with in their own order, others as they come."""
    places = {name: place for place, name in enumerate(START_WITH)}
    order = list(GROUPS)
    return sorted(relations, key=lambda one: (order.index(group_of(one)), places.get(one.name, 0)))

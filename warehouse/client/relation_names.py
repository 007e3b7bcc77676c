"""Every public relation as an attribute. What a type checker sees of them is in the file of stubs beside this one."""

from abc import ABC, abstractmethod

from rare_tokens.common.closest import hint
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.client.relation_method import RelationMethod
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.schema.relations import Relation


class UnknownRelationError(UserError, AttributeError):
    """There is no relation of that name; as an attribute that is not there it is an AttributeError as well."""


class RelationNames(ABC):
    """The public relations as attributes; `dir` lists them."""

    @abstractmethod
    def _method(self, relation: Relation) -> RelationMethod:
        """The object for a relation."""

    def __getattr__(self, name: str) -> RelationMethod:
        """The relation of that name."""
        relation = relations.relations().get(name)
        if relation is not None and relation.columns:
            return self._method(relation)
        if name.startswith("_"):  # looked for by Python itself and by notebooks
            raise AttributeError(name)
        error = UnknownRelationError(f"There is no relation {name}.{hint(name, shown())} w.tables() lists them all.")
        error.name = name  # so that Python does not add a guess of its own
        raise error

    def __dir__(self) -> list[str]:
        """Names for completion, the relations among them."""
        return [*super().__dir__(), *shown()]


def shown() -> list[str]:
    """The relations and macros that hold rows."""
    return [name for name, relation in relations.relations().items() if relation.columns]

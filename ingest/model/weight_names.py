"""The names and shapes in weight files against those of the model: what is missing, left over, or of another shape."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from safetensors import safe_open
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import CONFIG, ModelFolder, Trust, refuse_pointer, weight_files
from rare_tokens.ingest.model.reading import reading

Shape = tuple[int, ...]

# What older versions of the library saved beside the weights and every version works out anew: masks, position numbers,
# the frequencies of rotary embeddings.
_WORKED_OUT = re.compile(r"(^|\.)(masked_bias|position_ids|rotary_emb\.inv_freq|rotary_pos_emb\.inv_freq)$")
_MASK = re.compile(r"(^|\.)(attn|attention|self_attn)(\.attention)?\.bias$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer|block)\.(\d+)\.")
_MASK_DIMENSIONS = 4


@dataclass(frozen=True)
class WeightNames:
    """The tensors in a model's safetensors files; none are known of pickles and of GGUF files before they are loaded.

    Attributes:
        shapes: of each tensor, by its name.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)

    @classmethod
    def of(cls, found: ModelFolder, trust: Trust) -> "WeightNames":
        """Read the headers of the files.

        Raises:
            UserError: one cannot be read, or is a Git LFS pointer.
        """
        shapes: dict[str, Shape] = {}
        for file in () if found.gguf is not None or found.absent else weight_files(found.path, trust):
            refuse_pointer(file)
            if file.suffix != ".safetensors":
                continue
            with (
                reading(f"{found.shown(file.name)} cannot be read", "Download it again."),
                safe_open(file, framework="pt") as opened,
            ):
                shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        return cls(shapes)

    @property
    def layers(self) -> int:
        """How many numbered layers there are; 0 where names do not tell."""
        return 1 + max((int(match[1]) for name in self.shapes if (match := _LAYER.search(name))), default=-1)

    def above(self, layers: int) -> list[str]:
        """Names of tensors of layers from number `layers` on."""
        return [name for name in self.shapes if (match := _LAYER.search(name)) and int(match[1]) >= layers]


def refuse_other_depth(found: ModelFolder, names: WeightNames, layers: int, ignore: Sequence[str]) -> None:
    """Refuse a configuration that counts other layers than the weights have, before anything is built from it.

    Raises:
        UserError: with both counts, and a tensor of a layer that it does not count.
    """
    above = _kept(names.above(layers), ignore)
    if above:
        _refuse(found, above, f" (config.json counts {layers} layers, the weights have {names.layers})")
    if 0 < names.layers < layers:
        raise UserError(
            f"{found.shown(CONFIG)} counts {layers} layers (num_hidden_layers), but its weights have {names.layers}. "
            "Correct it, or download the missing weights."
        )


def refuse_left_over(
    found: ModelFolder, names: WeightNames, model: PreTrainedModel, report: dict[str, Any], ignore: Sequence[str]
) -> list[str]:
    """Refuse weights that the model has and the files have not, or the other way round, or of another shape.

    Args:
        found: the model's folder.
        names: what its files hold.
        model: loaded, or on the meta device.
        report: what the library said of it: `missing_keys`, `unexpected_keys`, `mismatched_keys`, …
        ignore: patterns of names that may be left over.

    Returns:
        The names that are left over and may be.

    Raises:
        UserError: with the number of such weights, and the first of them.
    """
    if errors := [*report.get("error_msgs", ()), *_values(report.get("conversion_errors", ()))]:
        raise UserError(f"{found.shown('weights')} cannot be converted to the model's ({str(errors[0])[:300]}).")
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{found.shown('weights')} lack {_counted(missing)} of the model that its config.json describes. "
            "Download the missing files, or correct the configuration."
        )
    if mismatched := sorted(report["mismatched_keys"], key=str):
        name, in_file, in_model = mismatched[0][:3]
        more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        raise UserError(
            f"--model {found.name}: {name} is {_shown(in_file)} in its weights and {_shown(in_model)} by its "
            f"config.json{more}. Correct the configuration, or use the files that belong together."
        )
    left = _left_over(names, model, report)
    if refused := _kept(left, ignore):
        _refuse(found, refused)
    return left


def _left_over(names: WeightNames, model: PreTrainedModel, report: dict[str, Any]) -> list[str]:
    """Names of tensors in the files that no weight of the model was made from, sorted.

    The library itself passes over some that a model's class lists, layers for predicting further tokens among them;
    those count too, except for what every version of it works out anew.
    """
    listed: Iterable[str] = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    patterns = [re.compile(pattern) for pattern in listed]
    taken = model.state_dict().keys()
    passed_over = {
        name for name in names.shapes if name not in taken and any(pattern.search(name) for pattern in patterns)
    }
    return sorted(
        name
        for name in passed_over | set(report["unexpected_keys"])
        if not _is_worked_out(name, names.shapes.get(name))
    )


def _kept(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that no pattern of `--ignore-weights` is for."""
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]


def _is_worked_out(name: str, shape: Shape | None) -> bool:
    is_mask = shape is not None and len(shape) == _MASK_DIMENSIONS and _MASK.search(name) is not None
    return is_mask or _WORKED_OUT.search(name) is not None


def _refuse(found: ModelFolder, names: Sequence[str], why: str = "") -> NoReturn:
    raise UserError(
        f"{found.shown('weights')} hold {_counted(sorted(names))} that the model of its config.json does not take"
        f"{why}. Correct the configuration, or go on without them by --ignore-weights PATTERN."
    )


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:2]) + (" …" if len(names) > 2 else "")
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({shown})"


def _shown(shape: Iterable[int]) -> str:
    return " × ".join(f"{size:,}" for size in shape) or "one number"


def _values(errors: Any) -> list[Any]:
    return list(errors.values()) if isinstance(errors, dict) else list(errors)

"""How much memory an ingest takes at its peak, how much there is, and which blocks of a model wait elsewhere.

Bytes count the process's own pages. Pages of mapped files, which the system can take back at any time, are not counted:
the captured arrays, and weights that their file stores in the requested dtype. docs/memory.md has the formulas in
words, and how close they come.
"""

import logging
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from rare_tokens.common.effects import ATTRIBUTION
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import size_in_words
from rare_tokens.ingest.ablation.block_sizes import BlockBytes, piece_size
from rare_tokens.ingest.ablation.reference import VALUES
from rare_tokens.ingest.ablation.stages.capture import POSITIONS_PER_BATCH
from rare_tokens.ingest.ablation.stages.parts import position_block
from rare_tokens.ingest.dense.ablation import MEMORY as DENSE_MEMORY
from rare_tokens.ingest.dense.ablation import WIDER
from rare_tokens.ingest.dense.parts import attribution_bytes
from rare_tokens.ingest.model.files import ModelFolder, Trust, weight_files
from rare_tokens.ingest.model.head import ROWS
from rare_tokens.ingest.model.load import DTYPES
from rare_tokens.ingest.model.mlp import decoder_blocks, mlp_shape
from rare_tokens.ingest.model.weightless import empty_model, has_post_norm, needs_dense_path
from rare_tokens.ingest.run.request import ALWAYS, NEVER, Request

log = logging.getLogger("rare_tokens")

LIBRARIES = 450_000_000  # Python, torch, transformers, DuckDB, a tokenizer: measured before a model is there
_SAFETENSORS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
_GROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True)
class RunShape:
    """The sizes that the memory of a run depends on."""

    positions: int  # T
    neurons: int  # N
    width: int  # d
    vocabulary: int  # V
    window: int
    element: int  # bytes of a weight in the run's dtype
    effects: tuple[str, ...]
    functions: int = 1  # of the token at each position: 2 where a norm follows the MLP
    references: int = 1  # by which every pair is ablated

    def stages(self) -> dict[str, int]:
        """The most bytes that each stage takes, besides weights and libraries."""
        T, N, d, V, e = self.positions, self.neurons, self.width, self.vocabulary, self.element
        batch = min(T, max(1, POSITIONS_PER_BATCH // self.window) * self.window)
        K = piece_size(V, d, N)
        block = BlockBytes.of(N, d, V, K, self.effects, self.functions)
        part = position_block(T, N)
        at_once = block.preferred_positions(part)
        z = block.z if block.keeps_z(at_once) else 0
        checked = min(VALUES, min(part, 256) * V)
        return {
            "forward pass": batch * (e * (3 * N + 8 * d) + 4 * (N + d)),
            "neurons": 16 * N * d + 48 * d * d + K * (40 * N + 20 * d) + 8 * V,
            "ablation": 8 * N * d
            + 16 * V
            + block.fixed
            + at_once * (block.each + z)
            + (8 + 4 * len(self.effects) * self.references) * part * N,
            "self-check": 8 * N * d + 8 * ROWS * d + 80 * checked + min(self.window, T) * V * (e + 4),
        }

    def beside_weights(self) -> int:
        """Bytes of the largest stage."""
        return max(self.stages().values())


@dataclass(frozen=True)
class Plan:
    """Where the model of a run is held, and the most memory that the run takes.

    Attributes:
        bytes: at the peak, on the device that computes.
        available: bytes on that device before anything is loaded.
        device_map: where each part of the model is, for `transformers`; None: all of it on the device.
        offloaded: bytes of the weights that wait off the device.
        is_whole: whether the run needs the whole model on the device.
    """

    bytes: int
    available: int
    device_map: dict[str, str] | None = None
    offloaded: int = 0
    is_whole: bool = False


def plan(
    request: Request, model: PreTrainedModel, layer: int, device: str, *, whole: bool = False, loaded: bool = False
) -> Plan:
    """How much a run takes, and which parts of its model must wait off the device. Refuses nothing.

    Args:
        request: the run.
        model: its model without weights.
        layer: of the neurons, counted from 0.
        device: that computes.
        whole: the whole model must be at hand because it is edited, as for attention.
        loaded: the model is on the device already, all of it.
    """
    options = request.options
    element = torch.finfo(DTYPES[options.dtype]).bits // 8
    neurons, width, vocabulary = mlp_shape(model, layer)
    functions = 2 if has_post_norm(model, layer) else 1
    shape = RunShape(
        options.tokens, neurons, width, vocabulary, options.window, element, options.effects, functions,
        request.together,
    )  # fmt: skip
    is_dense = needs_dense_path(model, layer) is not False  # if that cannot be told, assume the larger
    available = available_bytes(device)
    fixed = LIBRARIES * (device == "cpu") + shape.beside_weights()
    if is_dense:
        wide = WIDER.get(DTYPES[options.dtype], torch.float32).itemsize
        kept = attribution_bytes(model, layer, options.window, wide) if ATTRIBUTION in options.effects else 0
        fixed += max(DENSE_MEMORY, kept) + wide * _parameters(model)
    weights = element * _parameters(model)
    mapped = mapped_bytes(request.folder, options.dtype, options.trust) if device == "cpu" else 0
    held = max(0, weights - mapped)
    available += held * loaded
    peak = fixed + held
    is_movable = not whole and not is_dense and options.offload != NEVER
    if not is_movable or (options.offload != ALWAYS and peak <= available):
        return Plan(peak, available, is_whole=whole or is_dense)
    share = max(0.0, 1 - mapped / weights)  # of the weights, that take memory of the process
    pinned = [block for index, block in enumerate(decoder_blocks(model)) if index == layer]
    moved = [block for block in decoder_blocks(model) if block not in pinned]
    at_hand = int(share * (weights - sum(element * _parameters(block) for block in moved)))
    passing = max((element * weight.numel() for block in moved for weight in block.parameters()), default=0)
    room = 0 if options.offload == ALWAYS else available - fixed - at_hand - passing
    places, offloaded = _places(model, layer, device, element, room, share)
    kept = at_hand + int(share * (sum(element * _parameters(block) for block in moved) - offloaded))
    return Plan(fixed + kept + passing, available, places, offloaded)


def planned(request: Request, device: str, *, whole: bool, loaded: bool = False) -> Plan:
    """The plan for a run whose model is about to be loaded, or is on the device already, if it is `loaded`.

    Raises:
        UserError: it does not fit, or its architecture is not known.
    """
    model = empty_model(request.folder.name, request.config, remote_code=request.options.trust.remote_code)
    found = plan(request, model, request.layer, device, whole=whole, loaded=loaded)
    require_memory(found, request, device)
    if found.offloaded:
        log.info(
            "%s of the model's weights wait off %s and are fetched block by block.",
            size_in_words(found.offloaded),
            device,
        )
    return found


def require_memory(found: Plan, request: Request, device: str) -> None:
    """Refuse a run that would not fit, or offloading that is not possible.

    Raises:
        UserError: naming the memory that it needs, what is available, and what to do.
    """
    if request.options.offload == ALWAYS and found.is_whole:
        raise UserError(
            "--offload always: attention and the dense path run the model again, so all of it must be on the device. "
            "Leave --offload out."
        )
    if found.bytes <= found.available:
        return
    smaller = "--dtype bfloat16, " if request.options.dtype in ("float32", "float64") else ""
    elsewhere = "--offload auto, " if request.options.offload == NEVER and not found.is_whole else ""
    raise UserError(
        f"{request.folder.name} needs about {size_in_words(found.bytes)} of memory on {device} and "
        f"{size_in_words(found.available)} are available. Use {smaller}{elsewhere}fewer --tokens or a larger machine."
    )


def available_bytes(device: str) -> int:
    """Memory that this process can still get on a device; on the CPU its control groups count too."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(int(index or 0))[0])
    if kind == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min([psutil.virtual_memory().available, *_left_to_groups()])


def mapped_bytes(folder: ModelFolder, dtype: str, trust: Trust) -> int:
    """Bytes of the weights that stay pages of their files on the CPU: safetensors of the same dtype.

    A file that cannot be read counts as none; loading it will say so.
    """
    if folder.gguf is not None or folder.absent:
        return 0
    if platform.system() == "Windows":  # files are read there, not mapped
        return 0
    total = 0
    for file in weight_files(folder.path, trust):
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, framework="pt") as opened:
                slices = [opened.get_slice(name) for name in opened.keys()]  # noqa: SIM118
                sizes = [
                    torch.Size(one.get_shape()).numel() for one in slices if one.get_dtype() == _SAFETENSORS[dtype]
                ]
        except (SafetensorError, OSError):
            return 0
        total += sum(sizes) * DTYPES[dtype].itemsize
    return total


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _places(
    model: PreTrainedModel, layer: int, device: str, element: int, room: int, share: float
) -> tuple[dict[str, str], int]:
    """A device for each part of the model, and the bytes that are not on the one that computes.

    The ablation reads the analysed block, the final norm and the unembedding, so only other blocks wait elsewhere:
    with a GPU in main memory while there is room, otherwise on disk, where safetensors are read in place.
    """
    blocks = decoder_blocks(model)
    path = next(name for name, module in model.named_modules() if module is blocks)
    names = path.split(".")
    places: dict[str, str] = {}
    for depth, name in enumerate(names):
        above = names[:depth]
        beside = [sibling for sibling, _ in model.get_submodule(".".join(above)).named_children() if sibling != name]
        places |= {".".join([*above, sibling]): device for sibling in beside}
    spare = 0 if device == "cpu" else available_bytes("cpu") // 2
    offloaded = 0
    for index, block in enumerate(blocks):
        size = element * _parameters(block)
        name = f"{path}.{index}"
        if index == layer:
            places[name] = device
        elif share * size <= room:
            places[name], room = device, room - int(share * size)
        else:
            offloaded += size
            places[name], spare = ("cpu", spare - size) if size <= spare else ("disk", spare)
    return places, offloaded


def _left_to_groups() -> Iterator[int]:
    """Bytes that each control group of this process still allows, counting file pages as free."""
    for folder in _groups():
        is_new = (folder / "memory.max").exists()
        names = ("memory.max", "memory.current") if is_new else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        try:
            most, used = ((folder / name).read_text().strip() for name in names)
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # the topmost group has no limit
            continue
        if most != "max":
            total = "" if is_new else "total_"
            files = sum(int(stat.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))
            yield max(0, int(most) - int(used) + files)


def _groups() -> list[Path]:
    """The folders of this process's control groups (versions 1 and 2), and those above them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds or "memory" in kinds.split(","):
            root = Path(_GROUPS, kinds)
            below = root / path.lstrip("/")
            found += [folder for folder in (below, *below.parents) if folder.is_relative_to(root)]
    return [folder for folder in found if folder.is_dir()]


# --- disk -------------------------------------------------------------------------------------------------------------

# Measured (docs/growth.md): activation and effect are 8 bytes, neuron, position and unfilled blocks 0.7, `agg_effect`
# and the other marts the rest; each further effect is a float.
BYTES_A_PAIR_STORED, BYTES_AN_EFFECT = 10.6, 4


def bytes_needed(positions: int, neurons: int, width: int, effects: int) -> int:
    """The most bytes that the parts of a run need: captured arrays and facts."""
    return positions * (width + neurons) * 4 + positions * neurons * 4 * (1 + effects)


def bytes_stored(pairs: int, effects: int) -> int:
    """Bytes that a published run takes in the warehouse."""
    return int(pairs * (BYTES_A_PAIR_STORED + BYTES_AN_EFFECT * (effects - 1)))


def require_space(
    folder: Path,
    positions: int,
    neurons: int,
    width: int,
    effects: int,
    *,
    runs: int = 1,
    twice_captured: bool = False,
) -> None:
    """Refuse runs if the disk has no room for their parts and for the warehouse beside them.

    `runs` that are measured together share the captured rows; `twice_captured`: workers leave these on the same disk
    before they are gathered.

    Raises:
        UserError: naming the space that it needs and the space that is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = bytes_needed(positions, neurons, width, runs * (1 + effects) - 1)
    needed += runs * bytes_stored(positions * neurons, effects)
    needed += positions * (width + neurons) * 4 * twice_captured
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The run needs about {size_in_words(needed)} of disk until it is published, and {size_in_words(free)} are "
            "free. Use fewer --tokens, or put --warehouse on a larger disk."
        )

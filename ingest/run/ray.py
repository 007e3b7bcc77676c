"""Units computed by actors of a Ray cluster. Only this module knows Ray, and imports it only when it is asked for.

Ray places the actors, restarts a lost one elsewhere, and gives it its unit again. A worker opens no database: it loads
the model from a `Recipe` and leaves files at a `Place`.
"""

import importlib.metadata
import logging
import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from rare_tokens import ingest
from rare_tokens.common.errors import RareTokensError, UserError
from rare_tokens.common.program import install
from rare_tokens.common.version import VERSION
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stages import Loaded, Recipe, Stage, Work

DISTRIBUTION = "rare-token-neurons"
LOCAL = "local"
REACHED_SECONDS = 5.0  # for an address to answer
ANSWER_SECONDS = 120.0  # for every node to say what it has
RESTARTS = 10  # of a worker, on any node
UNITS_PER_WORKER = 8  # with fewer, waiting for the last unit takes a large share of the time
RETRIES = -1  # of a unit: while its worker is restarted. Until Ray knows that a node is lost, each try fails
OBJECT_STORE = 128 << 20  # bytes: what is sent is small
_ENVIRONMENT = "OMP_NUM_THREADS"


class _Worker:
    """An actor: it loads the model once, and keeps what the units of a stage share."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._loaded: Loaded | None = None
        self._work: tuple[str, Work] | None = None  # of the stage at hand

    def load(self, recipe: Recipe) -> Loaded:
        """Load the model, once only."""
        if self._loaded is None:
            self._loaded = recipe.load()
        return self._loaded

    def ready(self, recipe: Recipe) -> str:
        """Load the model; returns the device that it is on."""
        return self.load(recipe).device

    def run(self, recipe: Recipe, stage: Stage, name: str, place: Place, unit: int) -> int:
        """Compute a unit. A restarted actor has nothing loaded, so each call brings the recipe.

        `name` is another for each time that a stage is spread: two of the same title may differ in all else.
        """
        loaded = self.load(recipe)
        if self._work is None or self._work[0] != name:
            self._work = None
            self._work = (name, stage.build(loaded, place))
        self._work[1](unit)
        return unit


class RayExecutor(LocalExecutor):
    """Runs units on a Ray started here or on an existing cluster: one actor per device, one run at a time."""

    def __init__(self, address: str | None = None, workers: int | None = None, *, quiet: bool = False) -> None:
        """Join the cluster at an address (`RAY_ADDRESS` where it is None), or start Ray on this machine.

        Args:
            address: host:port of a cluster's head, `auto` for the one on this machine, or `local`.
            workers: how many; None: one per GPU, or without GPUs one per node.
            quiet: show no progress.

        Raises:
            UserError: Ray is not installed, the address does not answer, or the cluster has no room.
        """
        super().__init__(quiet=quiet)
        address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        if address != LOCAL:
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # read when Ray is imported; it tries for minutes
        self.ray = _imported()
        self._join(address)
        nodes = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise UserError(f"--ray-address {address}: no node of the cluster has a CPU to compute with.")
        self.nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
        resources = self.ray.cluster_resources()
        self.gpus, cpus = int(resources.get("GPU", 0)), int(resources["CPU"])
        self.workers = workers or self.gpus or len(nodes)
        if self.gpus and self.workers > self.gpus:
            raise UserError(f"--workers {self.workers}: the cluster has {self.gpus} GPUs, and a worker takes one.")
        self.least_units = UNITS_PER_WORKER * self.workers
        self.threads = int(os.environ.get(_ENVIRONMENT) or max(1, cpus // self.workers))
        self.times = self.gpus or self.workers * self.threads / torch.get_num_threads()
        self._pool: tuple[Recipe, Any, Any] | None = None

    def check(self, versions: Mapping[str, str], place: Place) -> None:
        """Make sure that every node has the versions that the run will record, and sees the place.

        Args:
            versions: versions by package, as they are here; `python` is one of them.
            place: where units will leave their files.

        Raises:
            UserError: naming the node and the package, or the place.
        """
        wanted = dict(versions) | {DISTRIBUTION: VERSION}
        with self._naming():
            for node, found in self._of_each_node(_answer(list(wanted))).items():
                for name, version in wanted.items():
                    if found[name] != version:
                        raise UserError(
                            f"Worker {node} has {name} {found[name] or 'not installed'}, this machine {version}. "
                            "A run is computed with one version of everything: install the same on both."
                        )
            with place.probed() as name:

                def look() -> None:
                    place.require(name)

                self._of_each_node(look)

    def ready(self, loaded: Loaded) -> None:
        """Start the actors of a run and let them load the model.

        Raises:
            UserError: one of them cannot.
        """
        with self._naming():
            self._pool_of(loaded.recipe)

    def spread(self, stage: Stage, loaded: Loaded, place: Place, units: Sequence[int]) -> Iterator[int]:
        """Let the actors that `ready` started pull the units."""
        if not units:
            return
        with self._naming():
            recipe, pool = self._pool_of(loaded.recipe)
            sent, name = self.ray.put(stage), uuid4().hex
            yield from pool.map_unordered(
                lambda actor, unit: actor.run.remote(recipe, sent, name, place, unit), list(units)
            )

    def close(self) -> None:
        """Leave the cluster, and end a Ray that was started here."""
        self._pool = None
        self.ray.shutdown()

    def _join(self, address: str) -> None:
        _require_answer(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == LOCAL:
            # This very code, wherever the command was started
            code = os.pathsep.join(filter(None, [str(_root()), os.environ.get("PYTHONPATH", "")]))
            quiet |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
            quiet |= {"runtime_env": {"env_vars": {"PYTHONPATH": code}}}
        try:
            self.ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            raise UserError(f"--ray-address {address}: cannot be joined ({_first_line(error)}).") from error

    def _pool_of(self, recipe: Recipe) -> tuple[Any, Any]:
        """The recipe as it is sent, and the actors of its run; those of the previous run end first."""
        from ray.util import ActorPool

        if self._pool is None or self._pool[0] is not recipe:
            self._pool = None
            sent = self.ray.put(recipe)
            # By default an actor needs a core to be placed but holds none, so a lost one finds room again
            held = {"num_gpus": 1, "num_cpus": 0} if self.gpus else {}
            actor = self.ray.remote(_Worker).options(
                scheduling_strategy="SPREAD", max_restarts=RESTARTS, max_task_retries=RETRIES, **held
            )
            actors = [actor.remote(self.threads) for _ in range(self.workers)]
            self.ray.get([one.ready.remote(sent) for one in actors])
            self._pool = (recipe, sent, ActorPool(actors))
        return self._pool[1:]

    def _of_each_node(self, function: Any) -> dict[str, Any]:
        """What a function returns on each node, by node name."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self.ray.remote(function)
        asked = [
            task.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
            for node in self.nodes
        ]
        answers = self.ray.get(asked, timeout=ANSWER_SECONDS)
        return {f"{name} ({node[:8]})": found for (node, name), found in zip(self.nodes.items(), answers, strict=True)}

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Raise an error of a worker as if it had happened here."""
        errors = self.ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            if isinstance(error.cause, RareTokensError):
                raise type(error.cause)(str(error.cause)) from error
            raise
        except errors.GetTimeoutError as error:
            raise UserError(
                f"The workers did not answer within {ANSWER_SECONDS:.0f} s. Is the cluster busy?"
            ) from error
        except errors.RayError as error:
            raise UserError(
                f"A worker was lost more than {RESTARTS} times, or could not be started ({_first_line(error)}). "
                "Run the same command again to resume."
            ) from error


def _answer(names: list[str]) -> Any:
    """A function that is sent whole, so that it also runs where this package is not installed."""
    distribution = DISTRIBUTION

    def answer() -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in names:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = None
        found["python"] = platform.python_version()
        try:
            from rare_tokens.common.version import VERSION as there  # noqa: N811

            found[distribution] = there
        except ImportError:
            found[distribution] = None
        return found

    return answer


def _imported() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError(
            f"--executor ray: Ray is not installed here. In this program's folder: {install('ray')}"
        ) from error
    return ray


def _require_answer(address: str) -> None:
    """Make sure that something listens at an address, since Ray itself keeps trying for minutes.

    Raises:
        UserError: nothing listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--ray-address {address}: does not answer ({_first_line(error)}). Give the host:port that "
            "`ray start --head` prints, and see that its port is open to this machine."
        ) from error


def _root() -> Path:
    return Path(ingest.__path__[0]).resolve().parent


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

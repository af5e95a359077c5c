"""Training with several processes: start-up, agreements, and the first process.

Only the first process writes. With one process, `join_cluster` does nothing, and
`broadcast_from_first` and an `Agreement` return their argument.
"""

import collections
import contextlib
import functools
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax.parallel.mesh import all_devices, make_mesh

Tree = TypeVar("Tree")

HEARTBEAT = 30  # seconds without a heartbeat after which a process counts as dead
WAIT = 300  # seconds that a process waits for the others at the start
# environment variables with the index and the number of processes
RANKS = {
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS"),
    "ompi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
}
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")


def cluster_arguments(
    environ: Mapping[str, str],
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None for a single process.

    Flags take precedence. Without flags, Slurm, Open MPI, TPU slices and indexed
    Kubernetes jobs are detected by their environment variables. The result is then {},
    and jax finds the arguments itself.

    Args:
        environ: environment variables, after jax has been imported.
        coordinator: address and port of process 0, HOST:PORT.
        num_processes: number of processes; 1: a single process, whatever the
            environment variables are.
        process_id: index of this process, from 0.

    Raises:
        ValueError: if flags are missing or out of range.

    >>> cluster_arguments({})
    >>> cluster_arguments({}, "10.0.0.1:1234", 2, 0)["process_id"]
    0
    """
    flags = (coordinator, num_processes, process_id)
    if flags == (None, 1, None):
        return None
    if flags == (None, None, None):
        return {} if detect_cluster(environ) else None
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(
            f"--coordinator={coordinator}, --num_processes={num_processes} and "
            f"--process_id={process_id} must be given together; give all three, or "
            "--num_processes=1 alone"
        )
    _require_valid(coordinator, num_processes, process_id)
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
        "cluster_detection_method": "deactivate",
    }


def _require_valid(coordinator, num_processes, process_id):
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator={coordinator} must be the address and a free port of "
            "process 0; use e.g. 10.0.0.1:1234"
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id={process_id} must be at least 0 and below "
            f"--num_processes={num_processes}; number the processes from 0"
        )


def detect_cluster(environ: Mapping[str, str]) -> str | None:
    """Returns the cluster that started this process as one of several, or None.

    This is narrower than jax's own detection, which fails in a shell on a Slurm node
    and in any Kubernetes pod that does not belong to an indexed job.

    >>> pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
    >>> detect_cluster(pod)
    'kubernetes'
    """
    if all(name in environ for name in SLURM) and _several(environ, "SLURM_NTASKS"):
        return "slurm"
    if "OMPI_MCA_orte_hnp_uri" in environ and _several(environ, "OMPI_COMM_WORLD_SIZE"):
        return "ompi"
    if "TPU_ML_PLATFORM" in environ:  # set by jax if it finds libtpu and TPU chips
        return _tpu(environ)
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        return "kubernetes"
    return None


def _several(environ, name):
    return int(environ.get(name, "1")) > 1


def _tpu(environ):
    """Returns "tpu" if there are several TPU processes, otherwise None.

    GKE lists the workers in an environment variable; elsewhere jax asks Google's
    metadata server.
    """
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get(
        "TPU_WORKER_HOSTNAMES"
    )
    if workers:
        several = "," in workers or _several(environ, "MEGASCALE_NUM_SLICES")
    else:
        several = "TPU_SKIP_MDS_QUERY" not in environ
    return "tpu" if several else None


@contextlib.contextmanager
def join_cluster(
    environ: Mapping[str, str], *, quiet: bool = False, **flags: Any
) -> Iterator[None]:
    """Joins the cluster that flags or environment variables describe, if any.

    Enter this context before any other use of jax. If an exception leaves the context,
    this process exits immediately, and so do the others: in a regular exit, jax would
    wait minutes for processes that wait for this one within a step. A line says what is
    waited for; if the others do not come within `WAIT` seconds, the process ends with
    another line and exit code 2.

    Args:
        environ: environment variables, after jax has been imported.
        quiet: whether only errors are printed.
        **flags: coordinator, num_processes and process_id, as for `cluster_arguments`.

    Raises:
        ValueError: if flags are wrong, Kubernetes cannot be queried, the other
            processes do not come, or there is no device.
    """
    arguments = cluster_arguments(environ, **flags)
    if arguments is None:
        all_devices()
        yield
        return
    if not arguments and detect_cluster(environ) == "kubernetes":
        _require_kubernetes()
    # jax's preemption service would catch SIGTERM, and the run would not stop
    jax.config.update("jax_enable_preemption_service", False)
    group = _described(environ, arguments)
    if not quiet:
        print(f"waiting for {group}", file=sys.stderr, flush=True)
    with _limited_wait(group):
        jax.distributed.initialize(
            **arguments,
            heartbeat_timeout_seconds=HEARTBEAT,
            initialization_timeout=2 * WAIT,
        )
    with contextlib.ExitStack() as stack:
        stack.push(_exit_immediately)
        _connect_devices()
        yield


def _described(environ: Mapping[str, str], arguments: Mapping[str, Any]) -> str:
    """Says which processes are joined, and how to train alone.

    >>> environ = {"OMPI_MCA_orte_hnp_uri": "1.0", "OMPI_COMM_WORLD_SIZE": "4"}
    >>> print(_described(environ | {"OMPI_COMM_WORLD_RANK": "1"}, {}))
    the other processes of ompi: this is process 1 of 4; --num_processes=1 trains alone
    """
    if arguments:
        who = f"coordinator {arguments['coordinator_address']}"
        index, count = arguments["process_id"], arguments["num_processes"]
    else:
        who = detect_cluster(environ) or ""
        index, count = (environ.get(name) for name in RANKS.get(who, ("", "")))
    which = f": this is process {index} of {count}" if count else ""
    return f"the other processes of {who}{which}; --num_processes=1 trains alone"


@contextlib.contextmanager
def _limited_wait(group: str) -> Iterator[None]:
    """Ends the process in one line after `WAIT` seconds, or if joining fails.

    JAX would abort the process with a stack trace, which Python cannot catch.
    """

    def give_up() -> None:
        line = f"error: after {WAIT} s there is no answer from {group}"
        print(line, file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(WAIT, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"{error}; there is no answer from {group}") from error
    finally:
        timer.cancel()


def _exit_immediately(kind, error, trace):
    """Ends the process after an error, with the interpreter's exit code."""
    if kind is None:
        return
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _connect_devices():
    """Connects all devices while the processes are at the same point.

    Gloo, which connects CPUs, times out after 30 s, and one process may need 30 s more
    than another to compile its first step.
    """
    multihost_utils.sync_global_devices("joined")
    mesh = Mesh(np.array(jax.devices()), ("device",))
    ones = jax.make_array_from_callback(
        mesh.devices.shape,
        NamedSharding(mesh, P("device")),
        np.ones(mesh.size).__getitem__,
    )
    jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))(ones).block_until_ready()


def _require_kubernetes():
    if importlib.util.find_spec("kubernetes") is None:
        raise ValueError(
            "an indexed Kubernetes job needs the Python package kubernetes to find its "
            "other pods; run pip install 'jax[k8s]', or set --num_processes=1 to train "
            "in each pod separately"
        )


def is_alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the first process, the only one that writes files."""
    return jax.process_index() == 0


def broadcast_from_first(tree: Tree) -> Tree:
    """Returns the first process's tree on all processes.

    Args:
        tree: numbers and arrays, with equal shapes and dtypes on all processes.
    """
    if is_alone():
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def differing(number: int) -> list[int]:
    """Returns the processes whose number is not that of the first one.

    The result is the same on all processes.

    Args:
        number: the number of this process, at least 0 and less than 2**32.
    """
    if is_alone():
        return []
    numbers = multihost_utils.process_allgather(np.uint32(number))
    return np.flatnonzero(numbers != numbers[0]).tolist()


class Agreement:
    """The largest of the numbers that all processes give, the same on all of them.

    The numbers are compared on the devices, after the step dispatched before them. A
    call returns the result of `LAG` calls earlier, so that no process waits for others.
    All processes make the same calls. With one process, it returns the number.
    """

    LAG = 2

    def __init__(self):
        self._pending: collections.deque[jax.Array] = collections.deque()
        self._mesh = make_mesh()

    def __call__(self, number: int, *, now: bool = False) -> int:
        """Gives a number and returns a largest one, 0 in the first calls.

        Args:
            number: the number, 0 or more.
            now: whether to wait for the others, and return the largest number of this
                call and of those whose results have not been returned.
        """
        if is_alone():
            return number
        self._pending.append(_maximum(_placed(number, self._mesh), self._mesh))
        found = [0]
        while len(self._pending) > (0 if now else self.LAG):
            found.append(int(self._pending.popleft()))
        return max(found)


@functools.cache
def _placed(number: int, mesh: Mesh) -> jax.Array:
    """This process's number on its devices, as rows of an array of all devices."""
    rows = np.full(mesh.size, number, np.int32)
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)


@functools.partial(jax.jit, static_argnums=1)
def _maximum(numbers: jax.Array, mesh: Mesh) -> jax.Array:
    everywhere = NamedSharding(mesh, P())
    return jax.lax.with_sharding_constraint(numbers.max(), everywhere)


class Peers:
    """What processes learn from each other while their main threads are in native code.

    The processes of `join_cluster` exchange numbers through the key-value store of the
    coordinator, which is in the first process. The methods can be called in any thread.
    """

    def __init__(self):
        self._client: Any = distributed.global_state.client

    def announce(self, number: int) -> None:
        """Lets `announced` return a number in all processes."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator ended
            self._set("announced", number)

    def announced(self) -> int:
        """Waits for a number that any process announces; 0 if the coordinator ends."""
        return self._get("announced")

    def vote(self, vote: bool) -> bool:
        """Gives this process's only vote, and returns whether all votes are True.

        A vote for True waits for those of the others.
        """
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._set(f"vote/{jax.process_index()}", int(vote))
        every = range(jax.process_count())
        return vote and all(self._get(f"vote/{i}") for i in every)

    def leave(self) -> None:
        """Leaves the cluster together with all others; then the process can be ended.

        A process that ended alone would make jax abort the others.
        """
        jax.distributed.shutdown()

    def _set(self, name: str, number: int) -> None:
        self._client.key_value_set(
            f"logo_jax/{name}", f"{number}", allow_overwrite=True
        )

    def _get(self, name: str) -> int:
        """Waits for a number; 0 if the coordinator has ended."""
        month = 30 * 24 * 3600 * 1000  # milliseconds
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            text = self._client.blocking_key_value_get(f"logo_jax/{name}", month)
            return int(text)
        return 0

"""Who computes cells: processes of this machine, or a Ray cluster.

An engine is given a function of this package and its arguments, all of which can be pickled, so that a machine of a
cluster needs nothing but the installed package: no disk is shared.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Finished:
    """What came of a call."""

    key: str
    value: Any = None
    """What the function returned."""
    error: str | None = None
    """The traceback, or what is known of the end of its process; None if it succeeded."""


class EngineLostError(RuntimeError):
    """The engine itself is gone, and all its calls with it; a call that fails is a `Finished`."""


@runtime_checkable
class Engine(Protocol):
    """Calls functions elsewhere."""

    slots: int
    """Calls that run at the same time; no more may be submitted at once."""

    def submit(self, key: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call. Raises `EngineLostError`."""
        ...

    def next_finished(self) -> Finished:
        """Wait for any call to end. Raises `EngineLostError`."""
        ...

    def close(self) -> None:
        """End all processes, and what they are computing."""
        ...


def _work(connection: Connection, threads: int, log: Path | None) -> None:
    """A worker process: calls what it is sent until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends its workers
    if log is not None:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            key, function, arguments = connection.recv()
        except EOFError:
            return
        connection.send(_call(key, function, arguments))
        sys.stdout.flush()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers; a cell would go on for minutes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Finished:
    try:
        return Finished(key, function(*arguments))
    except BaseException:  # noqa: B036 - SystemExit too: an error of a run is one
        return Finished(key, error=traceback.format_exc())


class LocalEngine:
    """Processes of this machine, each with its share of the cores. One that dies takes only its own call with it."""

    def __init__(self, workers: int, threads: int, logs: Path | None = None) -> None:
        self.slots, self._threads, self._logs = workers, threads, logs
        self._context = multiprocessing.get_context("spawn")  # torch does not survive a fork
        self._idle: list[_Worker] = []
        self._busy: dict[str, _Worker] = {}
        self._started = 0
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)

    def submit(self, key: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call in an idle process, or a new one."""
        worker = self._idle.pop() if self._idle else self._start()
        self._busy[key] = worker
        worker.connection.send((key, function, arguments))

    def next_finished(self) -> Finished:
        """Wait for any call to end."""
        ready = multiprocessing.connection.wait([worker.connection for worker in self._busy.values()])
        key, worker = next((key, worker) for key, worker in self._busy.items() if worker.connection in ready)
        del self._busy[key]
        try:
            finished = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            why = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
            return Finished(key, error=f"its process ended with {why}; is there enough memory for --workers?")
        self._idle.append(worker)
        return finished

    def close(self) -> None:
        """End all processes."""
        for worker in [*self._idle, *self._busy.values()]:
            worker.process.terminate()
        for worker in [*self._idle, *self._busy.values()]:
            worker.process.join()
            worker.connection.close()
        self._idle, self._busy = [], {}

    def _start(self) -> "_Worker":
        self._started += 1
        log = None if self._logs is None else self._logs / f"worker_{self._started}.log"
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._threads, log), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


@dataclass(frozen=True)
class _Worker:
    process: Any
    connection: Connection


class RayEngine:
    """A Ray cluster: the one of RAY_ADDRESS, or one of this machine's cores that is started here.

    Where the cluster has GPUs a call gets one of its own, and no more run at the same time.

    Raises `ValueError`, naming the remedy, when Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, workers: int | None, threads: int) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(
                "--engine ray needs Ray, which is not installed: pip install 'csd_nerf[ray]' (in a checkout: pip "
                "install -e '.[ray]'), or take --engine local"
            ) from error
        self._ray, self._ours = ray, not ray.is_initialized()
        if self._ours:
            try:
                ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
            except Exception as error:  # noqa: BLE001 - it raises plain ones
                raise ValueError(
                    f"--engine ray: no cluster can be had ({error}); give that of RAY_ADDRESS, or try again when the "
                    "machine is less busy"
                ) from error
        resources = ray.cluster_resources()
        cores, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
        room = gpus or max(1, cores // threads)
        self.slots = min(workers or room, gpus) if gpus else workers or room
        self._threads = threads
        self._remote = ray.remote(num_cpus=threads, num_gpus=1 if gpus else 0, max_retries=0)(_call_with_threads)
        self._running: dict[Any, str] = {}

    def submit(self, key: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call somewhere in the cluster. Raises `EngineLostError` where that cannot be reached any more."""
        try:
            reference = self._remote.remote(self._threads, key, function, arguments)
        except self._ray.exceptions.RayError as error:
            raise _lost(error) from error
        self._running[reference] = key

    def next_finished(self) -> Finished:
        """Wait for any call to end. Raises `EngineLostError` where the cluster cannot be reached any more."""
        try:
            (ready,), _ = self._ray.wait(list(self._running), num_returns=1)
        except self._ray.exceptions.RayError as error:
            raise _lost(error) from error
        key = self._running.pop(ready)
        try:
            return self._ray.get(ready)
        except Exception as error:  # noqa: BLE001 - a machine that is lost, a process that is killed
            return Finished(key, error=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Cancel what is running; leave a cluster that was there before as it was."""
        try:
            for reference in self._running:
                self._ray.cancel(reference, force=True)
        except self._ray.exceptions.RayError:
            pass  # a cluster that is gone computes nothing
        self._running = {}
        if self._ours:
            self._ray.shutdown()


def _lost(error: Exception) -> EngineLostError:
    return EngineLostError(f"--engine ray: the cluster is lost ({type(error).__name__}: {error})")


def _call_with_threads(threads: int, key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Finished:
    import torch

    torch.set_num_threads(threads)
    return _call(key, function, arguments)

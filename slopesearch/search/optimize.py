"""optimize(): from a request to a study that is running: everything checked before anything is written."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optuna.trial import Trial

from slopesearch.config import StudySpec, TrialConfig
from slopesearch.search import store
from slopesearch.search.events import Began, Listener, Noted
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.loop import HANG_TIMEOUT, Interrupts, Loop
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.records import StudyRecord
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.sqlite import (
    DEFAULT_URL,
    check_database,
    check_name,
    check_writable,
    database_path,
    only_writer,
)
from slopesearch.search.textbook import first_trials
from slopesearch.training.data import content_hash, find
from slopesearch.training.devices import best_precision, default_pack, resolve_devices
from slopesearch.wording import RequestError, unknown

MOST_WORKERS = 1024  # a typing error beyond
MOST_IN_A_PACK = 4096


@dataclass(frozen=True)
class Outcome:
    """How a call of `optimize` ended: `finished` counts complete and pruned trials of the whole study."""

    name: str
    finished: int
    target: int
    interrupted: bool


@dataclass(frozen=True)
class Machine:
    """On what a study runs: a device for each worker, how these are launched, how many trials share one."""

    slots: list[str]
    launcher: str
    pack: int | None  # None: as many as suit the devices


def choose_machine(devices: str, workers: int | None, pack: int | None, launcher: str) -> Machine:
    """What is asked for, as `optimize` takes it. Raises RequestError where it is not there."""
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise RequestError(f"workers: from 1 to {MOST_WORKERS}, given {workers}")
    if pack is not None and not 1 <= pack <= MOST_IN_A_PACK:
        raise RequestError(f"pack: from 1 to {MOST_IN_A_PACK}, given {pack}")
    if launcher not in LAUNCHERS:
        raise RequestError(unknown("launcher", launcher, list(LAUNCHERS)))
    return Machine(resolve_devices(devices, workers), launcher, pack)


@contextmanager
def _interrupts() -> Iterator[Interrupts]:
    """Count Ctrl-C and SIGTERM instead of dying of them; in the main thread, which alone gets signals."""
    interrupts = Interrupts()

    def count(signum: int, frame: object) -> None:
        interrupts.count += 1

    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _choose(
    spec: StudySpec,
    name: str | None,
    path: Path,
    folder: Path,
    devices: list[str],
    note: Callable[[str], None],
) -> tuple[str, StudySpec]:
    """The study's name and its full spec: the stored one where the study exists, else with the defaults."""
    stored = store.read_spec(path, name) if name else None
    if stored is None or name is None:
        # Before anything is downloaded: what does not fit together will not do so afterwards.
        resolve(spec.model_copy(update={"dataset": "mnist"}) if spec.dataset == "auto" else spec, "float32")
        spec = spec.model_copy(update={"dataset": find(spec.dataset, folder, note)})
        name = name or f"{spec.dataset}-{spec.model}"
        stored = store.read_spec(path, name)
    if stored is None:
        return name, resolve(spec, best_precision(devices))
    check(stored.model_dump())  # another version may have known other names
    store.refuse_mixing(name, stored, spec)
    find(stored.dataset, folder, note)
    return name, stored


def optimize(
    spec: StudySpec,
    *,
    trials: int,
    folder: Path = Path("data"),
    url: str = DEFAULT_URL,
    name: str | None = None,
    devices: str = "auto",
    workers: int | None = None,
    pack: int | None = None,
    launcher: str = "process",
    timeout: float | None = None,
    hang_timeout: float = HANG_TIMEOUT,
    deterministic: bool = False,
    listen: Listener = lambda event: None,
) -> Outcome:
    """Run a study, or go on with it, until it holds `trials` finished ones; begin none after `timeout` s.

    `folder` is the data folder; `pack` trials train together on a device, by default as many as suit it;
    `deterministic` gives the same trials on any number of workers, see `Loop`. A worker without a word for
    `hang_timeout` s is ended. The first Ctrl-C or SIGTERM lets the running trials finish; the second leaves
    them, and the next call runs them again. Raises RequestError, before anything is written, where the
    request is wrong; StudyFailedError where trial after trial fails, or the file cannot be written.
    """
    started = time.monotonic()
    if trials < 1:
        raise RequestError(f"trials: at least 1, given {trials}")
    if name is not None:
        check_name(name)
    machine = choose_machine(devices, workers, pack, launcher)
    spec = check(spec.model_dump(exclude_unset=True))
    path = database_path(url)
    check_database(path)
    check_writable(path)
    name, spec = _choose(spec, name, path, folder, machine.slots, lambda text: listen(Noted(text)))
    return run_study(
        name,
        spec,
        partial(sample, spec),
        trials=trials,
        path=path,
        folder=folder,
        data_hash=content_hash(spec.dataset, folder),
        machine=machine,
        deadline=started + timeout if timeout is not None else float("inf"),
        hang_timeout=hang_timeout,
        deterministic=deterministic,
        listen=listen,
    )


def run_study(
    name: str,
    spec: StudySpec,
    configure: Callable[[Trial], TrialConfig],
    *,
    trials: int,
    path: Path,
    folder: Path,
    data_hash: str,
    machine: Machine,
    deadline: float = float("inf"),
    hang_timeout: float = HANG_TIMEOUT,
    deterministic: bool = False,
    listen: Listener,
) -> Outcome:
    """Run what `configure` makes of each trial until the study in the file holds `trials` finished ones.

    The spec is full and the request found right; `deadline` is a time of `time.monotonic`.
    """
    path.parent.mkdir(exist_ok=True)  # the default folder; any other has been found there
    with (
        only_writer(path, name),
        store.database(path) as storage,
        _interrupts() as interrupts,
    ):
        sampler = SeededSampler(SAMPLERS[spec.sampler], spec.seed, first_trials(spec))
        study = store.create_or_resume(storage, name, spec, data_hash, sampler, PRUNERS[spec.pruner]())
        before = StudyRecord(name, spec, store.read_trials(study))
        finished = before.count("COMPLETE") + before.count("PRUNED")
        slots = machine.slots[: max(0, trials - finished)]
        if not slots:
            listen(Began(before, [], trials))
            return Outcome(name, finished, trials, interrupted=False)
        running = LAUNCHERS[machine.launcher](slots, folder)
        try:
            loop = Loop(
                study,
                spec,
                configure,
                running,
                target=trials,
                listen=listen,
                interrupts=interrupts,
                deadline=deadline,
                hang_timeout=hang_timeout,
                pack=machine.pack or (1 if deterministic else default_pack(slots, trials)),
                deterministic=deterministic,
            )
            listen(Began(before, running.devices, trials))
            del before  # 4 kB a trial
            loop.run()
        finally:
            running.close()
        interrupted = interrupts.count > 0 and loop.finished < trials
        return Outcome(name, loop.finished, trials, interrupted)

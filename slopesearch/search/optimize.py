"""optimize(): from a request to a study that is running: everything checked before anything is written."""

import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from slopesearch.config import Precision, ResolvedSpec, StudySpec
from slopesearch.search.events import Began, Listener, Noted
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.ledger import Configure, Ledger
from slopesearch.search.loop import Interrupts, Loop
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import Store, check_name, create_or_resume, refuse_mixing
from slopesearch.search.textbook import first_trials
from slopesearch.training.data import content_hash, find
from slopesearch.training.devices import best_precision
from slopesearch.training.parity import why_no_packs
from slopesearch.wording import RequestError


@dataclass(frozen=True)
class Outcome:
    """How a call of `optimize` ended: `finished` counts complete and pruned trials of the whole study."""

    name: str
    finished: int
    target: int
    interrupted: bool


def optimize(
    spec: StudySpec,
    *,
    trials: int,
    name: str | None = None,
    store: Store | None = None,
    settings: Settings | None = None,
    listen: Listener = lambda event: None,
) -> Outcome:
    """Run a study, or go on with it, until it holds `trials` finished ones.

    The study is called DATASET-MODEL unless it has a `name`; `store` is the default storage unless given.
    The first Ctrl-C or SIGTERM lets the running trials finish; the second leaves them, and the next call runs
    them again. Raises RequestError, before anything is written, where the request is wrong;
    StudyFailedError where trial after trial fails, or the storage cannot be written.
    """
    store, settings = store or Store(), settings or Settings()
    if trials < 1:
        raise RequestError(f"trials: at least 1, given {trials}")
    if name is not None:
        check_name(name)
    devices = settings.slots()
    spec = check(spec.model_dump(exclude_unset=True))
    store.check_writable()
    name, full = _study(store, spec, name, settings, devices, lambda text: listen(Noted(text)))
    return run_study(
        name,
        full,
        partial(sample, full),
        trials=trials,
        store=store,
        settings=settings,
        data_hash=content_hash(full.dataset, settings.folder),
        listen=listen,
    )


def _study(
    store: Store,
    spec: StudySpec,
    name: str | None,
    settings: Settings,
    devices: list[str],
    note: Callable[[str], None],
) -> tuple[str, ResolvedSpec]:
    """The name and the spec of the study that is asked for, stored or with the defaults; finds its images."""
    if name is not None and (stored := store.spec_of(name)) is not None:
        return name, _resumed(name, stored, spec, settings, note)
    precision = best_precision(devices)
    resolve(spec, precision)  # before a download: what does not fit together will not do so after it
    spec = spec.model_copy(update={"dataset": find(spec.dataset, settings.folder, note)})
    full = resolve(spec, precision)
    if name is None:
        name = f"{full.dataset}-{full.model}"
        if (stored := store.spec_of(name)) is not None:
            return name, _resumed(name, stored, spec, settings, note)
    return name, full


def _resumed(
    name: str, stored: ResolvedSpec, given: StudySpec, settings: Settings, note: Callable[[str], None]
) -> ResolvedSpec:
    """The stored spec, where nothing was given that differs from it."""
    try:
        check(stored.model_dump())
    except RequestError as error:  # another version knew other names
        raise RequestError(
            f"the study '{name}' was made by another version, and this one cannot go on with it:",
            *(f"  {sentence}" for sentence in error.sentences),
            f"start another study: add --name {shlex.quote(name + '-2')}",
        ) from None
    refuse_mixing(name, stored, given)
    find(stored.dataset, settings.folder, note)
    return stored


def run_study(
    name: str,
    spec: ResolvedSpec,
    configure: Configure,
    *,
    trials: int,
    store: Store,
    settings: Settings,
    data_hash: str,
    listen: Listener,
) -> Outcome:
    """Run what `configure` makes of each trial until the study holds `trials` finished ones.

    The request has been found right, and the images are in the data folder.
    """
    devices = settings.slots()
    with store.writing(name) as storage, _interrupts() as interrupts:
        study_id = create_or_resume(storage, name, spec, data_hash, settings.deterministic)
        sampler = SeededSampler(SAMPLERS[spec.sampler], spec.seed, first_trials(spec))
        ledger = Ledger(storage, study_id, spec, sampler, PRUNERS[spec.pruner]())
        before = ledger.load()
        finished = before.count("COMPLETE") + before.count("PRUNED")
        devices = devices[: max(0, trials - finished)]
        if not devices:
            listen(Began(before, [], trials, store.path))
            return Outcome(name, finished, trials, interrupted=False)
        settings = _with_sound_packs(settings, devices, trials, spec.precision, listen)
        launcher = LAUNCHERS[settings.launcher](devices, settings.folder)
        try:
            listen(Began(before, launcher.devices, trials, store.path))
            del before  # 4 kB a trial
            loop = Loop(ledger, configure, launcher, settings, trials, listen, interrupts)
            loop.run()
        finally:
            launcher.close()
        interrupted = interrupts.count > 0 and loop.finished < trials
        return Outcome(name, loop.finished, trials, interrupted)


def _with_sound_packs(
    settings: Settings, devices: list[str], trials: int, precision: Precision, listen: Listener
) -> Settings:
    """The settings, with packs of one, and a word on it, where a GPU trains packs with wrong numbers."""
    if settings.pack_for(devices, trials) == 1:
        return settings
    for device in dict.fromkeys(devices):
        reason = why_no_packs(device, precision) if device.startswith("cuda") else None
        if reason is not None:
            note = f"trials train one at a time, since packs cannot be trusted on {device}: {reason}"
            listen(Noted(f"{note}; `python -m slopesearch doctor` says more"))
            return replace(settings, pack=1)
    return settings


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

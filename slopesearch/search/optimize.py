"""optimize(): from a request to a study that is running: everything checked before anything is written."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

from slopesearch.config import Precision, Range, ResolvedSpec, StudySpec
from slopesearch.search.cover import size
from slopesearch.search.events import Began, Listener, Noted
from slopesearch.search.given import KEPT, Backlog, Given, joined, kept, refuse_misfits
from slopesearch.search.inherit import Heritage, has_begun_from, inheritance, take_over, widened
from slopesearch.search.ledger import Configure, Ledger
from slopesearch.search.loop import Interrupts, Loop, counting
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.records import StudyRecord
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.schedule import Schedule
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import (
    Store,
    check_name,
    create_or_resume,
    refuse_mixing,
    refuse_other_images,
)
from slopesearch.training.data import candidates, content_hash, find
from slopesearch.training.devices import gpu_shares
from slopesearch.training.parity import why_no_packs
from slopesearch.wording import RequestError, differences


@dataclass(frozen=True)
class Outcome:
    """How a call of `optimize` ended: `finished` counts complete and pruned trials of the whole study.

    `begun` counts the trials that the call itself began. `space`: how many configs the space holds, where
    each of them has a trial, so that there is none left.
    """

    name: str
    finished: int
    target: int
    interrupted: bool
    space: int | None = None
    begun: int = 0


def optimize(
    spec: StudySpec,
    *,
    trials: int,
    name: str | None = None,
    source: str | None = None,
    given: Sequence[Given] = (),
    begin_from: str | None = None,
    store: Store | None = None,
    settings: Settings | None = None,
    listen: Listener = lambda event: None,
) -> Outcome:
    """Run a study, or go on with it, until it holds `trials` finished ones.

    The study is called DATASET-MODEL unless it has a `name`, or SOURCE-DATASET where `source` names the study
    file that asks. Version 0.1.0 took no notice of the file: where there is no SOURCE-DATASET, but a
    DATASET-MODEL with which the request agrees, that goes on, as it did. `store` is the default storage.
    Configs that a person has `given` run next, once each, over the total where need be. `begin_from` names a
    study whose trials a new one begins with, see `inheritance`; the total counts them.
    The first Ctrl-C or SIGTERM lets the running trials finish; the second leaves them, and the next call runs
    them again. Raises RequestError, before anything is written, where the request is wrong;
    StudyFailedError where trial after trial fails, or the storage cannot be written.
    """
    store, settings = store or Store(), settings or Settings()
    if trials < 1:
        raise RequestError(f"trials: at least 1, given {trials}")
    if name is not None:
        check_name(name)
    if source is not None:
        check_name(f"{source}-{spec.dataset}")
    spec = check(spec.model_dump(exclude_unset=True))
    store.check_writable()

    def note(text: str) -> None:
        listen(Noted(text))

    old = None if begin_from is None else store.read_search(begin_from)
    with settings.connected():
        settings.slots()
        if old is None:
            name, full = _study(store, spec, name, source, given, settings, note)
        else:
            name, full = _successor(store, spec, name, source, old)
        refuse_misfits(name, full, given)
        find(full.dataset, settings.folder, note)  # behind what can be refused without the images
        data_hash = content_hash(full.dataset, settings.folder)
        if old is not None:
            refuse_other_images(old.name, old.spec, old.attributes, data_hash)
        return run_study(
            name,
            full,
            partial(sample, full),
            trials=trials,
            store=store,
            settings=settings,
            data_hash=data_hash,
            listen=listen,
            given=given,
            heritage=None if old is None else inheritance(old, full),
            size=partial(size, full.space) if _may_repeat(full) else None,
        )


def _may_repeat(spec: ResolvedSpec) -> bool:
    """Whether a config may come twice; version 0.1.0 did not mind, and its studies go on so."""
    return spec.plan == "cover" and not isinstance(spec.space.lr, Range)


def _study(
    store: Store,
    spec: StudySpec,
    name: str | None,
    source: str | None,
    given: Sequence[Given],
    settings: Settings,
    note: Callable[[str], None],
) -> tuple[str, ResolvedSpec]:
    """The name and the spec of the study that is asked for, stored or with the defaults.

    Of a new study on the data set "auto" it finds the images, to know which data set that is.
    """
    if name is not None and (stored := store.spec_of(name)) is not None:
        return name, _resumed(name, stored, spec)
    precision = settings.best_precision(spec.precision)
    full = resolve(spec, precision)
    for dataset in () if name is not None else candidates(spec.dataset, settings.folder):
        called = _default_name(store, spec, source, dataset, note)
        if (stored := store.spec_of(called)) is not None:
            full = _resumed(called, stored, spec)
            if full.dataset == "digits" and spec.dataset == "auto":
                note(
                    f"no MNIST in '{settings.folder}': going on with the study '{called}', on the bundled "
                    "digits; for MNIST add --dataset mnist"
                )
            return called, full
    if spec.dataset == "auto":
        # Whatever does not fit with MNIST, but for a data set that is named, will not fit after a download.
        somewhere = [replace(one, others={**one.others, "dataset": None}) for one in given]
        refuse_misfits(name or _named(source, full.dataset, full.model), full, somewhere)
        full = resolve(spec.model_copy(update={"dataset": find("auto", settings.folder, note)}), precision)
    return name or _named(source, full.dataset, full.model), full


def _named(source: str | None, dataset: str, model: str) -> str:
    return f"{dataset}-{model}" if source is None else f"{source}-{dataset}"


def _default_name(
    store: Store, spec: StudySpec, source: str | None, dataset: str, note: Callable[[str], None]
) -> str:
    """The name of a study that was given none, or the one that version 0.1.0 gave it, see `optimize`."""
    name, before = _named(source, dataset, spec.model), _named(None, dataset, spec.model)
    if name == before or store.spec_of(name) is not None:
        return name
    stored = store.spec_of(before)
    if stored is None or differences(stored, spec):
        return name
    note(
        f"going on with the study '{before}', which asks the same; for one of this file's own add "
        f"--name {shlex.quote(name)}"
    )
    return before


def _successor(
    store: Store, spec: StudySpec, name: str | None, source: str | None, old: StudyRecord
) -> tuple[str, ResolvedSpec]:
    """The name and the spec of a study that begins from another, now or in an earlier call."""
    full = resolve(check(widened(old, spec)), old.spec.precision)
    name = name or _named(source, full.dataset, full.model)
    stored = store.find(name, "ranking")
    if stored is not None and stored.trials and not has_begun_from(stored, old):
        raise RequestError(
            f"--from begins a new study, and '{name}' is there already; name another: "
            f"--name {shlex.quote(name + '-2')}"
        )
    return name, full if stored is None else _resumed(name, stored.spec, full)


def _resumed(name: str, stored: ResolvedSpec, given: StudySpec) -> ResolvedSpec:
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
    given: Sequence[Given] = (),
    heritage: Heritage | None = None,
    size: Callable[[Mapping[str, Any]], float] | None = None,
    interrupts: Interrupts | None = None,
) -> Outcome:
    """Run what `configure` makes of each trial until the study holds `trials` finished ones.

    Before that it takes over what it has inherited, and runs what is given, over the total where need be. The
    request has been found right, and the images are in the data folder. `size`: see SeededSampler; a space
    that is used up ends the study. `interrupts` are those of a call that runs several studies.
    """
    interrupts = interrupts or Interrupts()
    most = inf if size is None else size({})
    devices = settings.slots()
    with store.writing(name) as storage, counting(interrupts):
        study_id = create_or_resume(storage, name, spec, data_hash, settings.deterministic)
        if heritage is not None and take_over(storage, study_id, heritage):
            listen(Noted(f"{name} {heritage.sentence}"))
        schedule = Schedule(spec)
        known = kept(storage, study_id, spec)
        backlog = Backlog(spec, wanted := joined(known, given), schedule, given)
        sampler = SeededSampler(SAMPLERS[spec.sampler], spec.seed, schedule, size)
        ledger = Ledger(storage, study_id, spec, sampler, PRUNERS[spec.pruner]())
        before = ledger.load(backlog.see)
        if wanted != known:  # before any of it runs, and behind the last reason to refuse
            storage.set_study_user_attr(study_id, KEPT, wanted)
        for sentence in backlog.explain(spec, given):
            listen(Noted(sentence))
        finished = before.count("COMPLETE") + before.count("PRUNED")
        trials = backlog.target(trials, finished)
        devices = devices[: max(0, trials - finished)]
        used_up = _used_up(ledger, most)
        if not devices or used_up is not None:
            listen(Began(before, [], trials, store.path))
            return Outcome(name, finished, trials, False, used_up)
        if not settings.on_ray:  # where each worker looks after its own card
            settings = _with_sound_packs(settings, devices, trials, spec.precision, listen)
        launcher = settings.launch(devices, spec, trials - finished, lambda: interrupts.count > 0)
        try:
            listen(Began(before, launcher.devices, trials, store.path))
            del before  # 4 kB a trial
            waiting = backlog.rest(), most
            loop = Loop(ledger, configure, launcher, settings, trials, listen, interrupts, schedule, *waiting)
            loop.run()
        finally:
            launcher.close()
        interrupted = interrupts.count > 0 and loop.finished < trials
        return Outcome(name, loop.finished, trials, interrupted, _used_up(ledger, most), loop.begun)


def _used_up(ledger: Ledger, most: float) -> int | None:
    """How many configs the space holds, where each of them has a trial that is over."""
    trials = ledger.study.get_trials(deepcopy=False)
    return int(most) if sum(trial.state.is_finished() for trial in trials) >= most else None


def _with_sound_packs(
    settings: Settings, devices: list[str], trials: int, precision: Precision, listen: Listener
) -> Settings:
    """The settings, with packs of one, and a word on it, where a GPU trains packs with wrong numbers."""
    if settings.pack_for(partial(gpu_shares, devices), trials) == 1:
        return settings
    for device in dict.fromkeys(devices):
        reason = why_no_packs(device, precision) if device.startswith("cuda") else None
        if reason is not None:
            note = f"trials train one at a time, since packs cannot be trusted on {device}: {reason}"
            listen(Noted(f"{note}; `python -m slopesearch doctor` says more"))
            return replace(settings, pack=1)
    return settings

"""What the ledger writes is what Optuna would have written, commit by commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import optuna
import pytest

from slopesearch.config import REPORTS, Report, TrialResult
from slopesearch.search.ledger import Job, Ledger
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.records import Stop, TrialRecord
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import Store, create_or_resume
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import Storages

SPEC = resolve(check({"dataset": "digits", "model": "mlp"}), "float32")
CONFIGURE = partial(sample, SPEC)


@contextmanager
def ledger(url: str, name: str = "study") -> Iterator[Ledger]:
    with Store(url).writing(name) as storage:
        study_id = create_or_resume(storage, name, SPEC, "images")
        sampler = SeededSampler(SAMPLERS["tpe"], SPEC.seed, [])
        opened = Ledger(storage, study_id, SPEC, sampler, PRUNERS["halving"]())
        opened.load()
        yield opened


def result(steps: int, ended: str = "completed") -> TrialResult:
    curve = tuple(
        Report(step=step, train_loss=1.0, val_loss=1.0, val_accuracy=step / 10)
        for step in range(1, steps + 1)
    )
    return TrialResult(
        ended=ended,  # type: ignore[arg-type]
        curve=curve,
        seconds=1.0,
        images_per_second=1.0,
        device="fake",
    )


def report(book: Ledger, job: Job, steps: int) -> None:
    for step in range(1, steps + 1):
        book.report(job, step / 10, step)
    book.commit()


def stop_at(step: int) -> Stop:
    return Stop(report=step, value=0.1, place=3, of=4, cut=0.2)


def stored(url: str) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="study", storage=url)
    trials = study.get_trials()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    return trials


def test_optuna_reads_what_was_written(storages: Storages) -> None:
    url = storages.url()
    with ledger(url) as book:
        jobs = [book.ask(CONFIGURE) for _ in range(24)]
        for job in (jobs[0], *jobs[4:]):
            report(book, job, REPORTS)
            book.tell(job, result(REPORTS))
        report(book, jobs[1], 3)
        book.audit(jobs[1], stop_at(1))
        book.audit(jobs[1], stop_at(3))
        book.tell(jobs[1], result(3, "pruned"))
        book.fail(jobs[2], "Traceback\nOSError: gone")
        report(book, jobs[3], 2)
        jobs.append(book.ask(CONFIGURE))
        trials = stored(url)
        memory = book.study.get_trials()
    assert [trial.state.name for trial in trials[:4]] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [trial.value for trial in trials[:4]] == [0.9, 0.3, None, None]
    assert trials[1].user_attrs["would_prune_at"] == 1
    assert trials[2].user_attrs["traceback"] == "Traceback\nOSError: gone"
    for one, other, job in zip(trials, memory, jobs, strict=True):
        assert one.number == other.number == job.number
        assert (one.params, one.distributions) == (other.params, other.distributions)
        assert (one.intermediate_values, one.system_attrs) == (other.intermediate_values, other.system_attrs)
        assert one.user_attrs["config"] == job.config.model_dump(mode="json")
        assert one.datetime_start is not None
        assert other.datetime_start is not None
        assert abs((one.datetime_start - other.datetime_start).total_seconds()) < 60
        assert (one.datetime_complete is None) == (other.datetime_complete is None)
    assert trials[24].system_attrs  # TPE's own notes are kept
    with elsewhere(url) as storage:
        assert optuna.load_study(study_name="study", storage=storage).best_value == 0.9


def test_nothing_is_visible_before_its_commit(storages: Storages) -> None:
    url = storages.url()
    with ledger(url) as book:
        job = book.ask(CONFIGURE)
        (asked,) = stored(url)
        assert (asked.params, asked.state.name) == (job.trial.params, "RUNNING")
        book.report(job, 0.1, 1)
        assert stored(url)[0].intermediate_values == {}
        book.commit()
        assert stored(url)[0].intermediate_values == {1: 0.1}
        book.tell(job, result(1, "pruned"))
        assert stored(url)[0].state.name == "RUNNING"
        book.commit()
        assert (stored(url)[0].state.name, stored(url)[0].value) == ("PRUNED", 0.1)


def test_an_interrupted_trial_keeps_its_config_and_a_repeated_report_is_ignored(storages: Storages) -> None:
    url = storages.url()
    with ledger(url) as book:
        first = book.ask(CONFIGURE)
        book.audit(first, stop_at(1))
        report(book, first, 3)
    with ledger(url) as book:
        (again,) = book.interrupted(lambda trial: pytest.fail("its config is stored"))
        assert (again.number, again.config, again.reported) == (0, first.config, 3)
        book.audit(again, stop_at(3))
        report(book, again, 4)
        book.tell(again, result(4, "pruned"))
        book.commit()
    (trial,) = stored(url)
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert trial.user_attrs["would_prune_at"] == 1
    assert trial.user_attrs["pruned_by"] == stop_at(1).model_dump()


@pytest.mark.parametrize("over", [True, False])
def test_the_pruner_knows_an_audited_trial_now_and_after_a_restart(storages: Storages, over: bool) -> None:
    url = storages.url()
    with ledger(url) as book:
        job = book.ask(CONFIGURE)
        report(book, job, 3)
        book.audit(job, stop_at(1))
        book.audit(job, stop_at(3))
        assert book.trial(job).user_attrs["would_prune_at"] == 1
        if over:
            book.tell(job, result(REPORTS))
        book.commit()
    with ledger(url) as book:
        assert book.trial(job).user_attrs["would_prune_at"] == 1
        assert ("config" in book.trial(job).user_attrs) != over  # which is 2 kB, and needed to run again
    edit = "UPDATE trial_user_attributes SET value_json = '[]' WHERE key = 'would_prune_at'"
    storages.execute(url, edit)
    with (
        pytest.raises(RequestError, match=r"trial 0 was changed: its would_prune_at is \[\]"),
        ledger(url),
    ):
        pass


def test_a_fault_of_who_looks_on_is_not_told_as_a_changed_trial(storages: Storages) -> None:
    url = storages.url()
    with ledger(url) as book:
        book.ask(CONFIGURE)
        book.commit()

    def look(trial: TrialRecord) -> None:
        raise ValueError("ours")

    with ledger(url) as book, pytest.raises(ValueError, match="^ours$"):
        book.load(look)


def test_a_trial_that_an_earlier_version_half_drew_is_drawn_to_its_end(storages: Storages) -> None:
    url = storages.url()
    with ledger(url, "whole") as book:
        whole = book.ask(CONFIGURE)
    with ledger(url):
        pass
    with Store(url).writing("study") as storage:
        sampler = SeededSampler(SAMPLERS["tpe"], SPEC.seed, [])
        study = optuna.load_study(study_name="study", storage=storage, sampler=sampler)
        study.ask().suggest_categorical("activation", SPEC.space.activation)
    with ledger(url) as book:
        (job,) = book.interrupted(CONFIGURE)
    assert job.config == whole.config
    (trial,) = stored(url)
    assert trial.params == whole.trial.params
    assert trial.user_attrs["config"] == job.config.model_dump(mode="json")


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DELETE FROM trials WHERE number = 1", "after its first 1 trials comes number 2"),
        ("UPDATE trials SET state = 'COMPLETE' WHERE number = 1", "trial 1 was changed"),
    ],
)
def test_an_edited_study_is_not_gone_on_with(storages: Storages, statement: str, sentence: str) -> None:
    url = storages.url()
    with ledger(url) as book:
        for _ in range(3):
            book.ask(CONFIGURE)
    storages.execute(url, statement)
    with pytest.raises(RequestError, match=sentence), ledger(url):
        pass


@contextmanager
def elsewhere(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """The storage as another program opens it."""
    storage = optuna.storages.RDBStorage(url)
    yield storage
    storage.engine.dispose()


def test_a_trial_that_was_enqueued_elsewhere_runs_under_its_number(storages: Storages) -> None:
    url = storages.url()
    with ledger(url) as book:
        book.tell(book.ask(CONFIGURE), result(REPORTS))
        book.commit()
    with elsewhere(url) as storage:
        optuna.load_study(study_name="study", storage=storage).enqueue_trial({"lr": 0.0123})
    with ledger(url) as book:
        first, second = book.ask(CONFIGURE), book.ask(CONFIGURE)
        assert [trial.state.name for trial in stored(url)] == ["COMPLETE", "RUNNING", "RUNNING"]
        book.tell(first, result(REPORTS))
        book.tell(second, result(REPORTS))
        book.commit()
    assert (first.number, first.config.lr, second.number) == (1, 0.0123, 2)
    trials = stored(url)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert trials[1].params["lr"] == 0.0123


@pytest.mark.parametrize("then", ["added to", "deleted", "deleted and another one begun"])
def test_a_study_that_another_program_changes_while_it_runs_takes_nothing_more(
    storages: Storages, then: str
) -> None:
    """Ids are given again: without a look, trials would go into the study that was begun in its place."""
    url = storages.url()
    with ledger(url) as book:
        book.tell(book.ask(CONFIGURE), result(REPORTS))
        running = book.ask(CONFIGURE)
        book.commit()
        with elsewhere(url) as storage:
            study = optuna.load_study(study_name="study", storage=storage)
            if then == "added to":
                study.add_trial(optuna.create_trial(value=0.5))
            else:
                optuna.delete_study(study_name="study", storage=storage)
            if then == "deleted and another one begun":
                other = optuna.create_study(study_name="other", storage=storage)
                for _ in range(2):
                    other.ask()
        with pytest.raises(StudyFailedError, match="another program has changed the study 'study'"):
            book.ask(CONFIGURE)
        if then != "added to":
            book.report(running, 0.5, 1)
            with pytest.raises(StudyFailedError, match="another program has changed the study 'study'"):
                book.commit()
    with elsewhere(url) as storage:
        for summary in optuna.get_all_study_summaries(storage):
            trials = optuna.load_study(study_name=summary.study_name, storage=storage).get_trials()
            assert [trial.number for trial in trials] == list(range(3 if then == "added to" else 2))
            assert all(not trial.params for trial in trials) or then == "added to"

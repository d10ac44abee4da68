"""Objective(spec)(trial): a trial of a study of your own, for `study.optimize`."""

from pathlib import Path

import optuna

from slopesearch.config import StudySpec
from slopesearch.search.records import attributes_of
from slopesearch.search.space import check, resolve, sample
from slopesearch.training.data import find, load
from slopesearch.training.devices import best_precision, one_device
from slopesearch.training.engine import train
from slopesearch.wording import RequestError


class Objective:
    """Trains one trial of an Optuna study, whatever its sampler, pruner and storage.

    Draws the parameters of `spec.space`, reports nine times, prunes when the study's pruner says so, stores
    what `optimize` stores and returns `spec.objective`. The study's direction has to be the objective's:
    maximize for val_accuracy, minimize for val_loss.

    `folder` is the data folder. On the CPU it trains with one thread, as workers do, and sets that for the
    process. Raises RequestError where the spec is wrong or the data are missing.
    """

    def __init__(self, spec: StudySpec, folder: Path = Path("data"), device: str = "auto") -> None:
        self.device = one_device(device)
        spec = check(spec.model_dump(exclude_unset=True))
        precision = best_precision([self.device.type])
        resolve(spec, precision)  # before a download: what does not fit together will not do so after it
        self.spec = resolve(spec.model_copy(update={"dataset": find(spec.dataset, folder, print)}), precision)
        sizes = self.spec.train_size, self.spec.val_size
        self.data = load(self.spec.dataset, folder, self.spec.split_seed, *sizes).to(self.device)

    def __call__(self, trial: optuna.Trial) -> float:
        """The objective after training. Raises optuna.TrialPruned where it was stopped or diverged."""
        wanted = "MAXIMIZE" if self.spec.maximize else "MINIMIZE"
        if [direction.name for direction in trial.study.directions] != [wanted]:
            raise RequestError(
                f"the study has to {wanted.lower()} {self.spec.objective}; "
                f'make it with optuna.create_study(direction="{wanted.lower()}")'
            )
        config = sample(self.spec, trial)
        trial.set_user_attr("config", config.model_dump(mode="json"))
        trial.set_user_attr("seed", self.spec.seed)
        run = train([config], self.data, self.device)
        reports = next(run)
        while True:
            report = reports[0]
            trial.report(getattr(report, self.spec.objective), report.step)
            try:
                reports = run.send([0] if trial.should_prune() else [])
            except StopIteration as end:
                (result,) = end.value
                break
        for name, value in attributes_of(result).items():
            trial.set_user_attr(name, value)
        if result.ended != "completed":
            raise optuna.TrialPruned
        return float(getattr(result.final, self.spec.objective))

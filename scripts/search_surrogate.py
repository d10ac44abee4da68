"""Studies in memory for benchmark_search.py: a surrogate of the training, and the samplers that ask it.

The surrogate's truth is a forest fitted to the stored curves, all reports and both metrics jointly. Its noise
is that of a seed: half the difference between the two curves of a config that ran twice, whole curves, from
the configs that end where the asked one does.
"""

import copy
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import spearmanr
from search_rules import HALF_AN_IMAGE, METRICS, Array, ArrayStudy, Curves, Metric, Rule, badness_of, judge
from sklearn.ensemble import ExtraTreesRegressor

from slopesearch.config import QUICK_VALIDATION, REPORTS, Plan, Report, ResolvedSpec, TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.search.cover import first_trials, unstopped
from slopesearch.search.pruner import AUDIT
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.space import sample
from slopesearch.search.textbook import N_STARTUP
from slopesearch.seeds import derive

BRANCH_STARTUP = 5  # finished trials of an activation before the sampler learns from them
NEIGHBOURS = 30  # twins whose noise a config may get: those that end nearest to it


def features(config: TrialConfig) -> list[float]:
    """A config as numbers: one of each choice, logs of rates and slopes."""
    names = (
        *(config.activation == name for name in ACTIVATIONS),
        *(config.init == name for name in INITS),
        *(config.norm == name for name in ("none", "before", "after")),
        config.slope_mode == "learnable",
        config.norm != "none",
    )
    logs = np.log([config.lr, config.negative_slope or 1e-3, config.slope_max or 1.0])
    return [*map(float, names), *map(float, logs)]


class Surrogate:
    """What a config would give: its truth, and a noisy run of it."""

    def __init__(self, curves: Curves, twins: dict[int, tuple[Report, ...]]) -> None:
        x = np.array([features(config) for config in curves.configs], dtype=np.float32)
        y = np.hstack([curves.badness[metric] for metric in METRICS])
        forest = ExtraTreesRegressor(
            100, min_samples_leaf=2, max_features=0.5, bootstrap=True, oob_score=True, random_state=0
        ).fit(x, y)
        self._trees = [tree.tree_ for tree in forest.estimators_]
        out_of_bag = forest.oob_prediction_[:, REPORTS - 1]
        self.rank_out_of_bag = float(spearmanr(out_of_bag, y[:, REPORTS - 1])[0])

        quick = min(QUICK_VALIDATION, curves.spec.val_size)
        self._images = np.array([quick] * (REPORTS - 1) + [curves.spec.val_size])
        rows = [row for row, number in enumerate(curves.numbers) if number in twins]
        again = badness_of([twins[curves.numbers[row]] for row in rows])
        both = y[rows], np.hstack([again[metric] for metric in METRICS])
        apart = both[0] - both[1]
        apart -= np.median(apart, axis=0)  # the seeds of a study are shared: their luck is not a config's
        self._noise = apart / np.sqrt(2)
        self._ends = (both[0] + both[1])[:, REPORTS - 1] / 2
        self.sd_of_seed = float(np.median(np.abs(self._noise[:, REPORTS - 1])) / 0.6745)

    def truth(self, config: TrialConfig) -> Array:
        """The badness without noise, nine reports by loss and nine by accuracy. [18]"""
        row = np.array([features(config)], dtype=np.float32)
        return np.asarray(np.mean([tree.predict(row)[0, :, 0] for tree in self._trees], axis=0))

    def run(self, truth: Array, generator: np.random.Generator) -> dict[Metric, Array]:
        """A run of a config, as `Curves.badness` holds it. [9] each"""
        nearest = np.argsort(np.abs(self._ends - truth[REPORTS - 1]))[:NEIGHBOURS]
        sign = generator.choice([-1, 1])  # the two curves of a pair are exchangeable
        loss, error = np.split(truth + sign * self._noise[generator.choice(nearest)], 2)
        wrong = np.round((np.exp(error) - HALF_AN_IMAGE) * self._images)  # whole images, so that ties happen
        return {"loss": loss, "accuracy": np.log(np.maximum(wrong, 0) / self._images + HALF_AN_IMAGE)}


def _tpe(seed: int, startup: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=False, constant_liar=True)


class BranchSampler(BaseSampler):
    """The activation is drawn by TPE from all trials, the rest from the trials of that activation alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: each parameter is drawn when the activation is known."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One draw by TPE; the study that it learns from is random before its twentieth trial."""
        startup = N_STARTUP
        if param_name != "activation" and trial.number >= N_STARTUP:
            study, startup = _branch(study, trial.params["activation"]), BRANCH_STARTUP
        sampler = _tpe(self._seed, startup)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def _branch(study: Study, activation: str) -> Study:
    """The study as it would be had it tried one activation alone."""

    def get_trials(
        deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = study.get_trials(deepcopy=False)
        return [
            trial
            for trial in trials
            if trial.params.get("activation") == activation and (states is None or trial.state in states)
        ]

    branch = copy.copy(study)
    branch._get_trials = get_trials  # type: ignore[method-assign]
    return branch


STRATEGIC_SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {**SAMPLERS, "tpe by branch": BranchSampler}


@dataclass(frozen=True)
class Strategy:
    """What a search is steered by: a sampler and a rule, and the metrics that the study and the rule read.

    `exempt` trials are never stopped; None is the number of the package.
    """

    sampler: str
    rule: Rule
    metric: Metric  # the rule's
    objective: Metric  # the sampler's, and the pick's
    plan: Plan = "cover"

    @property
    def key(self) -> str:
        """Its name in a file."""
        return f"{self.sampler}, {self.rule.name} by {self.metric}, {self.objective}, {self.plan}"


@dataclass(frozen=True)
class Simulated:
    """What one simulated study gave."""

    picks: list[float]  # the noise-free final loss of the pick when each share of the budget was spent
    trials: int
    kept: Sequence[int]  # trials after the start-up that the rule let through, and all such trials
    kept_good: Sequence[int]  # the same of their best third by their own final loss
    rank: float  # of the rung at report 1 with the end, among the trials after the start-up


def simulate(
    surrogate: Surrogate, spec: ResolvedSpec, strategy: Strategy, seed: int, budget: int, shares: list[float]
) -> Simulated:
    """One whole study of a seed on the surrogate, until `budget` reports are trained."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    spec = spec.model_copy(update={"plan": strategy.plan})
    sampler = SeededSampler(STRATEGIC_SAMPLERS[strategy.sampler], seed, first_trials(spec))
    study = optuna.create_study(direction="minimize", sampler=sampler)
    exempt = unstopped(spec)
    rivals = ArrayStudy(budget)
    spent, found, after = 0, [], []
    while True:
        trial = study.ask()
        truth = surrogate.truth(sample(spec, trial))
        generator = np.random.default_rng(derive(seed, "run", trial.number))
        run = surrogate.run(truth, generator)
        row, told = run[strategy.metric], run[strategy.objective]
        audited = derive(seed, "audit", trial.number) % AUDIT == 0
        reports, raced = judge(strategy.rule, rivals, row, REPORTS, trial.number < exempt, audited)
        spent += reports
        if spent > budget:
            break
        rivals.add(row, raced, reports == REPORTS)
        for step in range(1, reports + 1):
            trial.report(float(told[step - 1]), step)
        if reports == REPORTS:
            study.tell(trial, float(told[-1]))
            found.append((spent, float(told[-1]), float(np.exp(truth[REPORTS - 1]))))
        else:
            study.tell(trial, state=TrialState.PRUNED)
        if trial.number >= N_STARTUP:
            ends = run["loss"]
            let_through = raced == REPORTS or trial.number < exempt
            after.append((let_through, float(ends[0]), float(ends[-1])))
    picks = []
    for share in shares:
        known = [(value, loss) for at, value, loss in found if at <= share * budget]
        picks.append(min(known, key=lambda one: one[0])[1])
    return Simulated(picks, len(study.trials) - 1, *_audit(after))


def _audit(after: list[tuple[bool, float, float]]) -> tuple[tuple[int, int], tuple[int, int], float]:
    """What the package's audit estimates, known here of every trial; see `Simulated`."""
    kept: NDArray[np.bool_] = np.array([row[0] for row in after])
    first, end = (np.array([row[i] for row in after]) for i in (1, 2))
    good = end <= np.quantile(end, 1 / 3)
    rank = float(spearmanr(first, end)[0])
    return (int(kept.sum()), len(kept)), (int(kept[good].sum()), int(good.sum())), rank

"""Which configs of a search are run again, and on which fresh seeds."""

from collections.abc import Mapping, Sequence

from slopesearch.config import Noun, TrialConfig
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.textbook import TEXTBOOK, Params
from slopesearch.seeds import derive

EARLIER = "confirmed before"
_PLACE = "top "  # and a number: the place of a trial in the search
TUTORIAL, HE = "the tutorial's recipe", "ReLU with He init"  # baselines, as TEXTBOOK names them
TUNED = {name: f"{name}, its lr tuned" for name in (TUTORIAL, HE)}  # the same, fairly


class Arm(Noun):
    """A config to confirm, why it was chosen, and its value in the search.

    `trial` is the number of its trial, None for a baseline that the search did not hold; `searched` the value
    of the objective, None where the search did not run it to its end.
    """

    roles: tuple[str, ...]
    config: TrialConfig
    trial: int | None = None
    searched: float | None = None

    @property
    def place(self) -> int:
        """Its place among the best of the search; 0 where it was chosen for another reason."""
        places = [int(role.removeprefix(_PLACE)) for role in self.roles if role.startswith(_PLACE)]
        return max(places, default=0)

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline, which the pick has to beat."""
        return bool({TUTORIAL, HE, *TUNED.values()} & set(self.roles))


def baselines(study: StudyRecord) -> dict[str, TrialConfig]:
    """The recipes that people use, by name, with the data, model and budget of a search.

    Raises RequestError where no trial has run to its end.
    """
    anywhere = study.best().config
    assert anywhere is not None
    return {name: _recipe(anywhere, TEXTBOOK[name]) for name in (TUTORIAL, HE)}


def choose_arms(study: StudyRecord, top: int, tuned: Mapping[str, TrialConfig] | None = None) -> list[Arm]:
    """The best few configs of a search, the best of each activation, and the baselines; none twice.

    `tuned` holds the baselines with a learning rate of their own, by name. Raises RequestError where no trial
    has run to its end.
    """
    as_used = baselines(study)
    chosen = [(f"{_PLACE}{place}", trial.config) for place, trial in enumerate(study.ranked()[:top], start=1)]
    for activation in study.spec.space.activation or ():
        best = _best_of(study, activation)
        if best is not None:
            chosen.append((f"best {activation}", best.config))
    chosen += as_used.items()
    chosen += [(TUNED[name], config) for name, config in (tuned or {}).items()]
    roles: dict[TrialConfig, list[str]] = {}
    for role, config in chosen:
        assert config is not None
        roles.setdefault(config, []).append(role)
    return [_arm(study, config, tuple(names)) for config, names in roles.items()]


def all_arms(chosen: Sequence[Arm], earlier: Sequence[Arm]) -> list[Arm]:
    """The arms that are chosen now, and those that were confirmed before the search went on."""
    now = {arm.config for arm in chosen}
    return [
        *chosen,
        *(arm.model_copy(update={"roles": (EARLIER,)}) for arm in earlier if arm.config not in now),
    ]


def _best_of(study: StudyRecord, activation: str) -> TrialRecord | None:
    """The best completed trial of an activation; where all were pruned, the trial that got furthest."""

    def uses_it(trial: TrialRecord) -> bool:
        return trial.config is not None and trial.config.activation == activation

    complete = next(filter(uses_it, study.ranked()), None)
    if complete is not None:
        return complete
    sign = 1 if study.spec.maximize else -1

    def reached(trial: TrialRecord) -> tuple[int, float]:
        last = max(trial.reports)
        return last, sign * trial.reports[last]

    pruned = (t for t in study.trials if t.state == "PRUNED" and t.reports and uses_it(t))
    return max(pruned, key=reached, default=None)


def _recipe(template: TrialConfig, recipe: Params) -> TrialConfig:
    """A textbook recipe with the data, model, budget and seeds of the search."""
    without = dict.fromkeys(("negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"))
    return template.model_copy(update={**without, **recipe})


def _arm(study: StudyRecord, config: TrialConfig, roles: tuple[str, ...]) -> Arm:
    trials = [trial for trial in study.trials if trial.config == config]
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    return Arm(
        roles=roles,
        config=config,
        trial=(complete or trials)[0].number if trials else None,
        searched=complete[0].value if complete else None,
    )


def paired(config: TrialConfig, study_seed: int, run: int, purpose: str = "confirm") -> TrialConfig:
    """The config on fresh seed number `run`: the same init draws and batch order for every config."""
    seeds = {f"{part}_seed": derive(study_seed, purpose, run, part) for part in ("init", "order")}
    return config.model_copy(update=seeds)

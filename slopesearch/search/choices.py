"""The choices of a run that nobody drew, as parameters that Optuna stores.

A study of planned runs shows them in the dashboard so. Without any, optuna-dashboard 0.21 divides by the
number of its parameters when it is asked for importances, and answers with an error.
"""

from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)
from optuna.storages._rdb import models
from sqlalchemy import insert, select

from slopesearch.config import Range, Space, TrialConfig
from slopesearch.search.records import StudyRecord

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__


def choice_rows(trial_id: int, config: TrialConfig, space: Space) -> list[dict[str, Any]]:
    """The fields of the space that a config has, as rows of Optuna's table of parameters."""
    rows = []
    for name in Space.model_fields:
        value = getattr(config, name)
        if value is None:
            continue
        axis = _axis(getattr(space, name), value)
        row = {"param_value": axis.to_internal_repr(value), "distribution_json": distribution_to_json(axis)}
        rows.append({"trial_id": trial_id, "param_name": name, **row})
    return rows


def _axis(axis: Range | tuple[Any, ...], value: Any) -> BaseDistribution:
    """The values of a field: those of the space, and the given one, which an arm may have beyond it."""
    if isinstance(axis, Range):
        is_log = axis.log and value > 0
        return FloatDistribution(min(axis.low, value), max(axis.high, value), log=is_log)
    return CategoricalDistribution(axis if value in axis else (*axis, value))


def fill_in(storage: "RDBStorage", study_id: int, study: StudyRecord) -> None:
    """Store the choices of those trials of a study that have no parameter: earlier versions did not."""
    configs = {trial.number: trial.config for trial in study.trials if trial.config is not None}
    bare = (
        select(TRIALS.c.trial_id, TRIALS.c.number)
        .where(TRIALS.c.study_id == study_id)
        .where(TRIALS.c.trial_id.not_in(select(PARAMS.c.trial_id)))
    )
    with storage.engine.begin() as connection:
        rows = [
            row
            for trial_id, number in connection.execute(bare).all()
            if number in configs
            for row in choice_rows(trial_id, configs[number], study.spec.space)
        ]
        if rows:
            connection.execute(insert(PARAMS), rows)

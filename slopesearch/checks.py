"""Checks that a study file and a config file share: names that are known, sizes that fit together."""

from collections.abc import Iterable, Mapping
from typing import Any

from slopesearch.config import StudySpec, TrialConfig
from slopesearch.nets.models import MODELS
from slopesearch.training.data import DATASETS
from slopesearch.wording import unknown


def unknown_names(given: Mapping[str, Any], known: Mapping[str, Iterable[str]]) -> list[str]:
    """A sentence for each name, or name in a list, that is not among those known of its kind.

    What is no text is left to the check of types.
    """
    found = []
    for kind, names in known.items():
        value = given.get(kind)
        for name in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(name, str) and name not in names:
                found.append(unknown(kind, name, list(names)))
    return found


def size_misfits(given: StudySpec | TrialConfig) -> list[str]:
    """A sentence, which begins with the field, for each size that the data set, the model or another refuses.

    Every size is filled in, and each is right by itself. Without validation images all may be trained on.
    """
    data, model = DATASETS[given.dataset], MODELS[given.model]
    train_size, val_size = given.train_size or 0, given.val_size or 0
    most = data.train_max + (data.val_max if val_size == 0 else 0)
    found = [
        f"{name}: model '{given.model}' takes none, given {size}; leave it out or choose model 'mlp'"
        for name, size, default in (("depth", given.depth, model.depth), ("width", given.width, model.width))
        if size is not None and default is None
    ]
    if train_size > most:
        found.append(f"train_size: at most {most:,} for {given.dataset}, given {train_size:,}")
    if val_size > data.val_max:
        found.append(f"val_size: at most {data.val_max:,} for {given.dataset}, given {val_size:,}")
    if given.batch_size > train_size:
        found.append(f"batch_size: at most train_size, which is {train_size:,}, given {given.batch_size:,}")
    return found

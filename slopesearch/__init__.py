"""Hyperparameter search for activations, slopes, BatchNorm placement, init and learning rate."""

TYPE_CHECKING = False  # typing's own would be the first of the modules that a command has to wait for
if TYPE_CHECKING:
    from typing import Any

    from slopesearch.config import StudySpec
    from slopesearch.nets.models import build_model
    from slopesearch.runs.export import load_config
    from slopesearch.search.objective import Objective
    from slopesearch.search.optimize import optimize
    from slopesearch.search.settings import Settings
    from slopesearch.search.store import Store

__version__ = "0.2.0"
__all__ = ["Objective", "Settings", "Store", "StudySpec", "build_model", "load_config", "optimize"]

_HOMES = {
    "Objective": "search.objective",
    "Settings": "search.settings",
    "Store": "search.store",
    "StudySpec": "config",
    "build_model": "nets.models",
    "load_config": "runs.export",
    "optimize": "search.optimize",
}


def __getattr__(name: str) -> "Any":
    """A public name, imported when it is first used: commands that only read must not wait for torch."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'slopesearch' has no attribute '{name}'")
    return getattr(import_module(f"slopesearch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What a launcher and its workers say to each other: one JSON message a line."""

from pydantic import BaseModel, ConfigDict

from slopesearch.config import Report, TrialConfig, TrialResult


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Work(_Message):
    """To the worker: train these together."""

    configs: tuple[TrialConfig, ...]


class Answer(_Message):
    """To the worker, after its reports: stop these members, go on with the rest."""

    stop: tuple[int, ...]


class Reported(_Message):
    """From the worker: the members still running were validated. It waits for an Answer."""

    reports: dict[int, Report]


class Finished(_Message):
    """From the worker: the result of every member; it is idle again."""

    results: tuple[TrialResult, ...]


class Failed(_Message):
    """From the worker, or on behalf of a dead one: the traceback, or how it died."""

    reason: str
    out_of_memory: bool = False


Message = Reported | Finished | Failed

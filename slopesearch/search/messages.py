"""What a launcher and its workers say to each other: one JSON message a line."""

from slopesearch.config import Noun, Report, TrialConfig, TrialResult


class Work(Noun):
    """To the worker: train these together."""

    configs: tuple[TrialConfig, ...]


class Answer(Noun):
    """To the worker, after its reports: stop these members, go on with the rest."""

    stop: tuple[int, ...]


class Reported(Noun):
    """From the worker: the members still running were validated. It waits for an Answer."""

    reports: dict[int, Report]


class Finished(Noun):
    """From the worker: the result of every member; it is idle again."""

    results: tuple[TrialResult, ...]


class Failed(Noun):
    """From the worker, or in the name of a dead worker: the traceback, or how the process died."""

    reason: str
    out_of_memory: bool = False


class Said(Noun):
    """From the worker, at any time: something that a person should know. It goes on."""

    text: str


Message = Reported | Finished | Failed | Said

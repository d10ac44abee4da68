"""What workers, their launcher and the loop say to each other; a process says one JSON message a line."""

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


class Joined(Noun):
    """In the name of a new slot, the next of the launcher's devices, which is idle: a worker has come."""


class Left(Noun):
    """In the name of a slot whose place is gone for good, and what ran there: nobody's fault, and why."""

    reason: str


FromWorker = Reported | Finished | Failed | Said
Message = FromWorker | Joined | Left

"""Schedule: what is fixed of a study's first trials, around those that are given by hand or taken over."""

from bisect import bisect_left, insort
from collections import Counter
from typing import Any

from slopesearch.config import ResolvedSpec, TrialConfig
from slopesearch.search.cover import LEAST, first_trials, unstopped
from slopesearch.search.records import TrialRecord
from slopesearch.search.textbook import Params, follows, textbook

CHOICES = ("activation", "slope_mode", "slope_max", "norm", "init")


class Schedule:
    """What is fixed of each trial, by its number: the entries of `first_trials`, in order, around `outside`.

    Trials that the sampler does not draw are outside: those given by hand, and those taken from another
    study. A whole entry, recipe or cover, that one of them ran is left out, since no config runs twice. So is
    an entry of the cover of whose choices the trials that were taken over have completed LEAST runs each.
    """

    def __init__(self, spec: ResolvedSpec) -> None:
        entries, whole = first_trials(spec), unstopped(spec)
        self._whole, self._rest = entries[:whole], entries[whole:]
        self._recipes = list(textbook(spec).values())
        self._outside: list[int] = []
        self._completed: Counter[tuple[str, Any]] = Counter()  # runs that were taken over, by choice

    def leave_out(self, number: int, config: TrialConfig | None) -> None:
        """Put a trial outside the schedule, before a later trial is asked for."""
        insort(self._outside, number)
        if config is not None:
            self._whole = [entry for entry in self._whole if not follows(config, entry)]

    def take_over(self, trial: TrialRecord) -> None:
        """Put a trial of another study outside the schedule, before the first trial is asked for."""
        self.leave_out(trial.number, trial.config)
        if trial.state == "COMPLETE" and trial.config is not None:
            self._completed.update((name, getattr(trial.config, name)) for name in CHOICES)
            self._whole = [e for e in self._whole if e in self._recipes or self._is_lacking(e)]

    def _is_lacking(self, entry: Params) -> bool:
        return any(self._completed[name, entry[name]] < LEAST for name in CHOICES if name in entry)

    def is_exempt(self, number: int) -> bool:
        """Whether a trial runs to its end whatever the pruner says: a whole entry, or what a person gave."""
        return self._is_outside(number) or self._place(number) < len(self._whole)

    def __len__(self) -> int:
        return len(self._whole) + len(self._rest) + len(self._outside)

    def __getitem__(self, number: int) -> Params:
        """What is fixed of the trial of a number."""
        entries = [*self._whole, *self._rest]
        place = self._place(number)
        return {} if self._is_outside(number) or place >= len(entries) else entries[place]

    def _is_outside(self, number: int) -> bool:
        place = bisect_left(self._outside, number)
        return place < len(self._outside) and self._outside[place] == number

    def _place(self, number: int) -> int:
        return number - bisect_left(self._outside, number)

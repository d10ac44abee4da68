"""Plan: what is fixed of a study's first trials, around those that are given by hand or taken over."""

from bisect import bisect_left, insort

from slopesearch.config import ResolvedSpec, TrialConfig
from slopesearch.search.textbook import Params, first_trials, follows, textbook


class Plan:
    """What is fixed of each trial, by its number: the entries of `first_trials`, in order, around `outside`.

    Trials that the sampler does not draw are outside the plan: those given by hand, and those taken from
    another study. A recipe of the textbook that one of them ran is left out, since no config runs twice.
    """

    def __init__(self, spec: ResolvedSpec) -> None:
        self._recipes = list(textbook(spec).values())
        self._cover = first_trials(spec)[len(self._recipes) :]
        self._outside: list[int] = []

    def leave_out(self, number: int, config: TrialConfig | None) -> None:
        """Put a trial outside the plan, before a later trial is asked for."""
        insort(self._outside, number)
        if config is not None:
            self._recipes = [recipe for recipe in self._recipes if not follows(config, recipe)]

    def is_exempt(self, number: int) -> bool:
        """Whether a trial runs to its end whatever the pruner says: a recipe, or what a person gave."""
        return self._is_outside(number) or self._place(number) < len(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes) + len(self._cover) + len(self._outside)

    def __getitem__(self, number: int) -> Params:
        """What is fixed of the trial of a number."""
        entries = [*self._recipes, *self._cover]
        place = self._place(number)
        return {} if self._is_outside(number) or place >= len(entries) else entries[place]

    def _is_outside(self, number: int) -> bool:
        place = bisect_left(self._outside, number)
        return place < len(self._outside) and self._outside[place] == number

    def _place(self, number: int) -> int:
        return number - bisect_left(self._outside, number)

"""What the terminal, the page and the CSV files say of an answer: rows, and the sentences of a person."""

from itertools import groupby
from math import ceil, exp
from typing import Any, NamedTuple

from slopesearch.evidence.answers import Answer, Contrast, SideRuns
from slopesearch.evidence.families import Metric, seeds_for
from slopesearch.evidence.statistics import FEWEST, MOST_SEEDS, Estimate, Judgement, level_of

Rows = list[dict[str, Any]]

FEWEST_RELATED = 3  # seeds, below which a correlation is +1 or -1 whatever happens

EDGE = "*"  # behind a rate at the edge of those that were tried


def in_unit(value: float, metric: Metric) -> float:
    """A difference as people read it: per cent of the loss, or points of the error."""
    return 100 * (exp(value) - 1) if metric == "val_loss" else 100 * value


def label(answer: Answer, name: str) -> str:
    """A side's name; of a learned mean, the slope that it is; of a bound, words that are no learned value."""
    side, config = answer.family.side(name), answer.side(name).config
    if side.mean_of:
        return f"fixed {config.negative_slope:.3g}"
    if config.slope_mode == "learnable" and answer.family.question in ("learned", "activation"):
        whose = "" if answer.family.question == "learned" else f"{config.activation} "
        return f"{whose}learned, at most {config.slope_max:g}"
    return name


def heading(answer: Answer) -> str:
    """The question, and by which rule it is answered, in two lines."""
    family = answer.family
    smallest = f"{100 * (family.smallest_loss - 1):.3g} %"
    judged = f"the loss, from {smallest} on"
    if family.metric == "val_error":
        judged = f"the error, from {family.smallest_error:g} points on"
    return (
        f"{family.question}: {family.asks}\n{answer.seeds} paired seeds; p counts below "
        f"{level_of(answer.look):g} (look {answer.look}); judged by {judged}"
    )


def columns(answer: Answer) -> tuple[str, ...]:
    """The headers of `table`."""
    if answer.family.metric == "val_loss":
        return ("arm", "lr", "loss", "sd", "difference, %", "p", "verdict")
    return ("arm", "lr", "error, %", "sd", "points", "p", "verdict")


def table(answer: Answer) -> list[tuple[str, ...]]:
    """A row per contrast below a row of what it is compared with; the difference with its 95 % interval."""
    rows: list[tuple[str, ...]] = []
    metric = answer.family.metric
    for other, contrasts in groupby(answer.contrasts, key=lambda contrast: contrast.other):
        rows.append((*_side_cells(answer, other, ""), "", "", ""))
        for contrast in contrasts:
            found = contrast.by(metric)
            p = "" if found.p is None else "<.001" if found.p < 0.001 else f"{found.p:.3f}"
            cells = _side_cells(answer, contrast.one, "  ")
            rows.append((*cells, _interval(found.difference, metric), p, found.verdict))
    return rows


def _side_cells(answer: Answer, name: str, indent: str) -> tuple[str, ...]:
    side = answer.side(name)
    rate = f"{side.config.lr:.2g}{EDGE if side.at_edge else ''}"
    if answer.family.metric == "val_loss":
        return (indent + label(answer, name), rate, f"{side.loss.mean:.4f}", f"{side.loss.sd:.4f}")
    return (indent + label(answer, name), rate, f"{100 * side.error.mean:.2f}", f"{100 * side.error.sd:.2f}")


def _interval(found: Estimate, metric: Metric) -> str:
    mean, low, high = (in_unit(value, metric) for value in (found.mean, found.low, found.high))
    digits = 0 if max(abs(low), abs(high)) >= 20 else 1 if metric == "val_loss" else 2
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def effect(found: Judgement, metric: Metric) -> str:
    """A difference in the unit that people read, with its 95 % interval."""
    name, unit = ("loss", "%") if metric == "val_loss" else ("error", "points")
    mean, interval = _interval(found.difference, metric).split(" ", 1)
    return f"{name} {mean} {unit} {interval}"


def word(found: Judgement) -> str:
    """A verdict in a word or two."""
    return {"NEGLIGIBLE": "too small to matter"}.get(found.verdict, found.verdict.lower())


def sentences(answer: Answer) -> list[str]:
    """A sentence per contrast, then what else a reader has to know of the answer."""
    told = [_sentence(answer, contrast) for contrast in answer.contrasts]
    edges = [side for side in answer.sides if side.at_edge]
    if edges:
        told.append(
            f"{EDGE} The best learning rate of {_listed(answer, edges)} lies at the edge of those tried: "
            "another one may do better."
        )
    if far := [f"{label(answer, row.one)} and {label(answer, row.other)}" for row in far_rates(answer)]:
        told.append(
            "The learning rates, chosen by one to four runs each, are 4 times apart or more in "
            f"{', '.join(far)}: part of the difference may be theirs."
        )
    for side in answer.sides:
        if side.diverged:
            told.append(
                f"{side.diverged} of {answer.seeds} runs of {label(answer, side.name)} diverged: chance."
            )
    told += _open(answer)
    related = [contrast.correlation for contrast in answer.contrasts if contrast.correlation is not None]
    if related and answer.seeds >= FEWEST_RELATED:
        told.append(
            f"Paired correlation of the log losses: {sum(related) / len(related):.2f} (mean of contrasts)."
        )
    return told


def far_rates(answer: Answer) -> list[Contrast]:
    """Settled contrasts whose arms were tuned to learning rates 4 times apart or more.

    Few runs chose them, whose luck may reach so far and then be a part of the difference. Where both rates
    were given nothing was chosen: they are what is asked.
    """

    def is_far(row: Contrast) -> bool:
        sides = [answer.side(name) for name in (row.one, row.other)]
        rates = [side.config.lr for side in sides]
        settled = row.by(answer.family.metric).verdict in ("BETTER", "WORSE")
        tuned = any(len(side.rates) > 1 for side in sides)
        return settled and tuned and max(rates) > 3.9 * min(rates)  # doublings, but for rounding

    return [row for row in answer.contrasts if is_far(row)]


def _listed(answer: Answer, sides: list[SideRuns]) -> str:
    return ", ".join(label(answer, side.name) for side in sides)


def _sentence(answer: Answer, contrast: Contrast) -> str:
    """What a person would write of a contrast: the loss, and the error beside it."""
    one, other = label(answer, contrast.one), label(answer, contrast.other)
    loss, error = contrast.val_loss, contrast.val_error
    if not loss.difference.mean and not loss.difference.sd and not error.difference.mean:
        return f"{one} instead of {other}: the same, run by run."
    mean, low, high = (
        in_unit(value, "val_loss")
        for value in (loss.difference.mean, loss.difference.low, loss.difference.high)
    )
    points = in_unit(error.difference.mean, "val_error")
    half = 100 * error.difference.half
    return (
        f"{one} instead of {other}: loss {abs(mean):.1f} % {_way(mean)} [{low:+.1f}, {high:+.1f}], "
        f"{_verdict(loss, f'{100 * (answer.family.smallest_loss - 1):.3g} %')}; "
        f"error {abs(points):.2f} ± {half:.2f} points {_way(points)}, "
        f"{_verdict(error, f'{answer.family.smallest_error:.2f}')}."
    )


def _way(difference: float) -> str:
    return "higher" if difference > 0 else "lower"


def _verdict(found: Judgement, within: str) -> str:
    match found.verdict:
        case "BETTER" | "WORSE":
            return found.verdict.lower()
        case "NEGLIGIBLE":
            return f"there, but below {within}"
        case "EQUIVALENT":
            return f"equivalent within {within}"
        case "NO VERDICT":
            return f"no verdict below {FEWEST} seeds"
    return "not settled"


def _open(answer: Answer) -> list[str]:
    """How many more seeds would settle what the metric leaves open."""
    within, beyond = _still(answer)
    told = [f"More than {MOST_SEEDS:,} seeds would settle {', '.join(beyond)}."] if beyond else []
    if settling := to_settle(answer):
        (first, further), *others = sorted(within.items(), key=lambda pair: pair[1])
        more = "".join(f", {count:,} {name}" for name, count in others)
        told.append(f"{further:,} more seeds would settle {first}{more}: --seeds {settling.seeds}.")
    return told


def _still(answer: Answer) -> tuple[dict[str, int], list[str]]:
    """The contrasts that are not settled: how many more seeds would, and those that take too many."""
    one_baseline = len({row.other for row in answer.contrasts}) == 1
    within, beyond = dict[str, int](), list[str]()
    for row in answer.contrasts:
        name = label(answer, row.one) + ("" if one_baseline else f" against {label(answer, row.other)}")
        judged = row.by(answer.family.metric)
        if judged.verdict != "NOT SETTLED":
            continue
        if judged.further is None:
            beyond.append(name)
        else:
            within[name] = judged.further
    return within, beyond


class Settling(NamedTuple):
    """What to type behind --seeds to settle all that seeds can, and how many further runs that takes."""

    seeds: int
    runs: int


def to_settle(answer: Answer) -> Settling | None:
    """What would settle what is open in an answer; None where nothing is that seeds can settle."""
    within, _ = _still(answer)
    if not within:
        return None
    question = answer.family.question
    seeds = ceil((answer.seeds + max(within.values())) / seeds_for(question, 1))
    return Settling(seeds, len(answer.sides) * (seeds_for(question, seeds) - answer.seeds))


def contrast_rows(answers: dict[str, Answer]) -> Rows:
    """A row per contrast and metric, for a CSV file; differences in the unit that is judged."""
    return [
        {
            "question": question,
            "arm": contrast.one,
            "against": contrast.other,
            "metric": metric,
            "seeds": answer.seeds,
            "look": answer.look,
            "arm_lr": answer.side(contrast.one).config.lr,
            "against_lr": answer.side(contrast.other).config.lr,
            **contrast.by(metric).difference.model_dump(),
            "smallest_effect": answer.family.smallest(metric),
            **contrast.by(metric).model_dump(exclude={"difference"}),
            "correlation": contrast.correlation,
        }
        for question, answer in answers.items()
        for contrast in answer.contrasts
        for metric in ("val_loss", "val_error")
    ]


def run_rows(answers: dict[str, Answer]) -> Rows:
    """A row per run, for a CSV file."""
    return [
        {
            "question": question,
            "arm": side.name,
            "seed": seed,
            "lr": side.config.lr,
            "val_loss": loss,
            "val_error": error,
        }
        for question, answer in answers.items()
        for side in answer.sides
        for seed, (loss, error) in enumerate(zip(side.losses, side.errors, strict=True))
    ]

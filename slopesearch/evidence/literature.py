"""What the literature says of a winner's neighbourhood, and whether the runs agree; a line each."""

from collections.abc import Mapping
from math import log

from slopesearch.evidence.answers import Answer
from slopesearch.evidence.statistics import estimate

# Mishkin, Sergievskiy and Matas 2016, "Systematic evaluation of CNN advances on the ImageNet", and its tables
# in github.com/ducha-aiki/caffenet-benchmark, batchnorm.md: CaffeNet at 128 pixels, log loss on ImageNet of
# one run each. Before the activation (ReLU) 2.35, after it 2.21; with BatchNorm after, ReLU 2.21, ELU 2.23.
MISHKIN = "Mishkin 2016"
AFTER = "BatchNorm after the activation ahead of before it (loss 2.21 against 2.35)"
RELU = "with BatchNorm ReLU slightly ahead of ELU (2.21 against 2.23)"


def literature(answers: Mapping[str, Answer]) -> list[str]:
    """A sentence for each finding that the arms of these answers can be held against; of a CNN alone."""
    found = []
    norm, activation = answers.get("norm"), answers.get("activation")
    if norm is not None and norm.sides[0].config.model == "cnn":
        found.append(_line(norm, "after", "before", AFTER))
    if activation is not None and activation.sides[0].config.model == "cnn":
        names = {side.config.activation: side.name for side in activation.sides}
        if activation.sides[0].config.norm != "none" and {"relu", "elu"} <= set(names):
            found.append(_line(activation, names["relu"], names["elu"], RELU))
    return found


def _line(answer: Answer, ahead: str, behind: str, finding: str) -> str:
    pairs = zip(answer.side(ahead).losses, answer.side(behind).losses, strict=True)
    found = estimate([log(one) - log(other) for one, other in pairs])
    agrees = "agrees" if found.high < 0 else "disagrees" if found.low > 0 else "neither agrees nor disagrees"
    measured = f"log loss {found.mean:+.3f} ± {found.half:.3f} on {answer.seeds} seeds"
    return f"{MISHKIN}: {finding}; the 95 % interval here {agrees} ({ahead} minus {behind}: {measured})."

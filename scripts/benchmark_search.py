r"""Which search finds the best config for the same training? Measured where a search happens: on real runs.

Store curves once: random runs that nothing stops are an ordinary study. The twins score a pick by another
number than the lucky one by which it was picked: the same config on a fresh seed. All three go on where they
were stopped.

    python -m slopesearch optimize --trials 400 --name curves --set sampler=random --set pruner=none \
        --storage sqlite:///curves.db
    python scripts/benchmark_search.py twins     sqlite:///curves.db twins.jsonl
    python scripts/benchmark_search.py replay    sqlite:///curves.db twins.jsonl
    python scripts/benchmark_search.py surrogate sqlite:///curves.db twins.jsonl studies.jsonl
    python scripts/benchmark_search.py verify --dataset digits --strategy tpe/halving/val_accuracy/cover

`replay` puts rules that stop runs, and the metric that decides, to the stored runs in many random orders.
`surrogate` adds what depends on the runs before, the sampler, on a model of the runs. `verify` runs whole
studies through the package and their picks on fresh seeds: hours. Budgets count reports, nine to a full run.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path
from typing import cast

import joblib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from search_rules import (
    METRICS,
    NONE,
    PRESENT,
    RULES,
    Array,
    Curves,
    Metric,
    Rule,
    add_line,
    read_curves,
    read_lines,
    read_twins,
)
from search_rules import replay as replay_rule
from search_surrogate import STRATEGIC_SAMPLERS, Simulated, Strategy, Surrogate, simulate

from slopesearch.config import REPORTS, Report, TrialConfig
from slopesearch.evidence.arms import paired
from slopesearch.search.optimize import optimize
from slopesearch.search.records import StudyRecord
from slopesearch.search.settings import Settings
from slopesearch.search.space import check
from slopesearch.search.store import Store
from slopesearch.seeds import derive
from slopesearch.training.data import Data, load_for
from slopesearch.training.engine import train

DATA = Path(environ.get("SLOPESEARCH_DATA", "data"))
EXEMPT = (5, 33)
SHARES = [0.25, 0.5, 1.0]  # of the budget, at which a simulated study is asked for its best so far
Z = 1.96
console = Console(width=180)


def run_again(config: TrialConfig, data: Data, seed: int, run: int) -> tuple[Report, ...]:
    """The curve of a config on fresh seed number `run`, on one thread, as a worker trains."""
    torch.set_num_threads(1)
    runs = train([paired(config, seed, run)], data, torch.device("cpu"))
    next(runs)
    while True:
        try:
            runs.send([])
        except StopIteration as end:
            return cast("tuple[Report, ...]", end.value[0].curve)


def twins(arguments: argparse.Namespace) -> None:
    """Run configs again, those that ended in the better half by loss first, until `--count` are there."""
    curves = read_curves(arguments.storage, arguments.name)
    there = read_twins(arguments.twins)
    finals, data = curves.badness["loss"][:, -1], load_for(curves.configs[0], DATA)
    order = [row for row in np.argsort(finals) if curves.completed[row]]
    half = len(order) // 2
    # Picks come from the best; and from the other half every third, for the surrogate's noise.
    wanted = [*order[:half], *order[half::3]][: arguments.count]
    for row in wanted:
        if curves.numbers[row] in there:
            continue
        curve = run_again(curves.configs[row], data, curves.spec.seed, 0)
        line = {"number": curves.numbers[row], "curve": [json.loads(one.model_dump_json()) for one in curve]}
        add_line(arguments.twins, line)
        print(
            f"trial {line['number']}: {np.exp(finals[row]):.4f}, again {curve[-1].val_loss:.4f}", flush=True
        )


@dataclass(frozen=True)
class Replayed:
    """What one rule picked and kept, in S orders at B budgets; picks are rows of the pool, by each metric."""

    picks: dict[Metric, Array]  # [S, B]
    kept: float
    kept_good: float


def replay_all(
    curves: Curves, rule: Rule, metric: Metric, exempt: int, orders: Sequence[Array], budgets: Sequence[int]
) -> Replayed:
    """One rule on every order; a pick is the best completed run within the budget."""
    finals = {by: curves.badness[by][:, -1] for by in METRICS}
    good = finals["loss"] <= np.quantile(finals["loss"], 1 / 3)
    picks: dict[Metric, list[list[int]]] = {by: [] for by in METRICS}
    kept = np.zeros((2, 2))
    for seed, order in enumerate(orders):
        luck = np.random.default_rng(derive(seed, "audit")).random(len(curves.length))
        ended = replay_rule(curves, order.tolist(), rule, metric, exempt, max(budgets) * REPORTS, luck)
        for one in ended[exempt:]:
            kept[int(good[one.run])] += (int(not one.stopped), 1)
        whole = [(one.run, one.spent) for one in ended if one.completed]
        within = [[run for run, spent in whole if spent <= budget * REPORTS] for budget in budgets]
        for by in METRICS:
            picks[by].append([min(runs, key=finals[by].__getitem__) for runs in within])
    return Replayed(
        {by: np.array(rows) for by, rows in picks.items()},
        kept=float(kept[:, 0].sum() / max(1, kept[:, 1].sum())),
        kept_good=float(kept[1, 0] / max(1, kept[1, 1])),
    )


@dataclass(frozen=True)
class Score:
    """The loss of each run on a fresh seed, and how noisy that is."""

    loss: Array  # [R]; of a run without a twin its own
    log_sd: float  # of one run, over seeds
    has_twin: Array  # [R]

    def mean(self, picks: Array, base: Array | None = None) -> tuple[float, float]:
        """The mean loss of picks, minus that of other picks in the same orders, and its standard error.

        The error holds the spread over orders and the seed noise of the twins, which many orders share; not
        that all orders are of one pool of runs.
        """
        weights = np.bincount(picks, minlength=len(self.loss)) / len(picks)
        values = self.loss[picks]
        if base is not None:
            weights -= np.bincount(base, minlength=len(self.loss)) / len(base)
            values = values - self.loss[base]
        orders = values.var(ddof=1) / len(values)
        seeds = np.sum((weights * self.log_sd * self.loss) ** 2)
        return float(values.mean()), float(np.sqrt(orders + seeds))


def score_of(curves: Curves, there: dict[int, tuple[Report, ...]]) -> Score:
    """The twins of a pool of runs as a score."""
    has = np.array([number in there for number in curves.numbers])
    own = np.exp(curves.badness["loss"][:, -1])
    pairs = zip(curves.numbers, own, strict=True)
    loss = np.array([there[number][-1].val_loss if number in there else value for number, value in pairs])
    apart = np.log(own[has] / loss[has])
    log_sd = float(np.median(np.abs(apart - np.median(apart))) / 0.6745 / np.sqrt(2)) if has.any() else 0.0
    return Score(loss, log_sd, has)


def say_correlations(curves: Curves) -> None:
    """The rank correlation between each rung and the end."""
    end = curves.badness["loss"][:, -1]
    table = Table(
        "rank correlation with the final loss", *(str(step) for step in range(1, REPORTS)), box=None
    )
    for share in (1.0, 0.5, 1 / 3):
        kept = end <= np.quantile(end, share)
        for metric in METRICS:
            at = curves.badness[metric][kept]
            cells = [f"{spearmanr(at[:, step], end[kept])[0]:.2f}" for step in range(REPORTS - 1)]
            table.add_row(f"{metric} at the rung, best {share:.0%} of runs", *cells)
    console.print(table)


def replay(arguments: argparse.Namespace) -> None:
    """Every rule by every metric on the stored runs, in the same random orders."""
    curves = read_curves(arguments.storage, arguments.name)
    score = score_of(curves, read_twins(arguments.twins))
    count, budgets = len(curves.numbers), arguments.budgets
    console.print(
        f"{curves.spec.dataset}: {count} runs, {int(score.has_twin.sum())} with a twin (seed noise of a log "
        f"loss {score.log_sd:.3f}), {arguments.orders} orders, budgets of {budgets} full runs"
    )
    console.print(
        "Losses are the twins' (nats, 1e-4); ± is one standard error of the orders and the twins' seeds."
    )
    say_correlations(curves)
    orders = [
        np.random.default_rng(derive(seed, "order")).permutation(count) for seed in range(arguments.orders)
    ]
    cases = [
        (rule, metric, exempt)
        for exempt in EXEMPT
        for rule in RULES
        for metric in METRICS
        if rule is not NONE or (metric == "accuracy" and exempt == EXEMPT[0])
    ]
    found = joblib.Parallel(n_jobs=arguments.jobs)(
        joblib.delayed(replay_all)(curves, rule, metric, exempt, orders, budgets)
        for rule, metric, exempt in cases
    )
    results = dict(zip(cases, found, strict=True))
    for exempt in EXEMPT:
        base = results[PRESENT, "accuracy", exempt]
        table = Table("rule", "reads", "picks by", *(f"{b} runs" for b in budgets), box=None)
        for column in (*(f"{b}: minus present" for b in budgets), "kept", "of good"):
            table.add_column(column)
        for (rule, metric, at), result in results.items():
            if at != exempt and rule is not NONE:
                continue
            for by in METRICS:
                picks = result.picks[by].T
                means = [score.mean(of) for of in picks]
                less = [score.mean(of, old) for of, old in zip(picks, base.picks["accuracy"].T, strict=True)]
                table.add_row(
                    *(rule.name, metric, by),
                    *(f"{1e4 * mean:.0f} ± {1e4 * error:.0f}" for mean, error in means),
                    *(interval(mean, error) for mean, error in less),
                    *(f"{result.kept:.0%}", f"{result.kept_good:.0%}"),
                )
        console.print(f"\nthe first {exempt} runs exempt")
        console.print(table)


def interval(mean: float, error: float) -> str:
    """A difference of losses in 1e-4 nats, with its 95 % interval and a star where that excludes zero."""
    low, high = mean - Z * error, mean + Z * error
    return f"{1e4 * mean:+.0f} [{1e4 * low:+.0f}, {1e4 * high:+.0f}]{'*' if low * high > 0 else ''}"


def strategies_of(arguments: argparse.Namespace) -> list[Strategy]:
    """What the command line asks for, by all three ways to use the metrics; that of version 0.1.0 first."""
    names = {rule.name: rule for rule in RULES}
    rules = [names[name] for name in arguments.rules] if arguments.rules else [NONE, PRESENT]
    reads: list[tuple[Metric, Metric]] = [("accuracy", "accuracy"), ("loss", "accuracy"), ("loss", "loss")]
    found = [
        Strategy(sampler, rule, metric, objective)
        for sampler in arguments.samplers
        for rule in rules
        for metric, objective in (reads[::2] if rule is NONE else reads)  # NONE reads nothing
    ]
    return [Strategy("tpe", PRESENT, "accuracy", "accuracy", plan="walk"), *found]


def surrogate(arguments: argparse.Namespace) -> None:
    """Whole studies on the surrogate, seed by seed, each on every strategy; goes on if stopped."""
    curves = read_curves(arguments.storage, arguments.name)
    model = Surrogate(curves, read_twins(arguments.twins))
    console.print(
        f"{curves.spec.dataset}: a surrogate of {len(curves.numbers)} runs, rank correlation out of bag "
        f"{model.rank_out_of_bag:.2f}, seed noise of a log loss {model.sd_of_seed:.3f}; "
        f"{arguments.budget} full runs; the noise-free loss of the pick (nats, 1e-4)"
    )
    strategies, there = strategies_of(arguments), read_studies(arguments.studies)
    for seed in range(arguments.seeds):
        left = [one for one in strategies if (one.key, seed) not in there]
        found = joblib.Parallel(n_jobs=arguments.jobs)(
            joblib.delayed(simulate)(model, curves.spec, one, seed, arguments.budget * REPORTS, SHARES)
            for one in left
        )
        for one, study in zip(left, found, strict=True):
            there[one.key, seed] = study
            add_line(arguments.studies, {"key": one.key, "seed": seed, **asdict(study)})
    table = Table(
        "sampler", "rule", "reads", "picks by", "plan", *(f"{share:.0%}" for share in SHARES), box=None
    )
    for column in ("minus present", "n", "trials", "kept", "of good", "rank 1-9"):
        table.add_column(column)
    for strategy in strategies:
        seeds = [seed for seed in range(arguments.seeds) if (strategy.key, seed) in there]
        studies, old = ([there[one.key, seed] for seed in seeds] for one in (strategy, strategies[0]))
        table.add_row(*row_of(strategy, studies, old))
    console.print(table)


def read_studies(path: Path) -> dict[tuple[str, int], Simulated]:
    """The simulated studies of a file, by strategy and seed."""
    return {(row.pop("key"), row.pop("seed")): Simulated(**row) for row in read_lines(path)}


def row_of(strategy: Strategy, studies: list[Simulated], base: list[Simulated]) -> list[str]:
    """A line of the surrogate's table; differences to the present search are paired by seed."""
    picks, old = (np.array([study.picks for study in group]) for group in (studies, base))
    root = np.sqrt(len(picks))
    less = picks[:, -1] - old[:, -1]
    kept, good = (np.sum([getattr(s, name) for s in studies], axis=0) for name in ("kept", "kept_good"))
    return [
        *(strategy.sampler, strategy.rule.name, strategy.metric, strategy.objective, strategy.plan),
        *(f"{1e4 * v.mean():.1f} ± {1e4 * v.std(ddof=1) / root:.1f}" for v in picks.T),
        interval(float(less.mean()), float(less.std(ddof=1) / root)),
        *(f"{len(studies)}", f"{np.mean([study.trials for study in studies]):.0f}"),
        *(f"{kept[0] / kept[1]:.0%}", f"{good[0] / good[1]:.0%}"),
        f"{np.mean([study.rank for study in studies]):.2f}",
    ]


def run_study(name: str, asked: dict[str, object], arguments: argparse.Namespace) -> StudyRecord:
    """A study of the package, until no further whole run fits into the budget."""
    store, settings = Store(arguments.storage), Settings(folder=DATA, workers=arguments.jobs)
    trials = trained = 0
    # A trial costs nine reports at most, so as many as surely fit are asked for, and again.
    while (fitting := arguments.budget - -(-trained // REPORTS)) > 0:
        outcome = optimize(check(asked), trials=trials + fitting, name=name, store=store, settings=settings)
        if outcome.interrupted:
            raise SystemExit(130)
        study, trials = store.read_search(name), outcome.finished
        trained = sum(len(trial.curve) for trial in study.trials)
    return study


def verify(arguments: argparse.Namespace) -> None:
    """Whole studies of one strategy through the package, and their picks on fresh seeds; they resume."""
    names = ("sampler", "pruner", "objective", "plan")
    asked = {
        "dataset": arguments.dataset,
        **dict(zip(names, arguments.strategy.split("/"), strict=True)),
    }
    losses = {row["name"]: row["losses"] for row in read_lines(arguments.out)}
    studies = [f"{'-'.join(asked.values())}-{seed}" for seed in range(arguments.seeds)]
    for seed, name in enumerate(studies):
        if name in losses:
            continue
        study = run_study(name, {**asked, "seed": seed}, arguments)
        pick = study.best()
        assert pick.config is not None
        data = load_for(pick.config, DATA)
        again = [run_again(pick.config, data, seed, run)[-1].val_loss for run in range(arguments.runs)]
        losses[name] = again
        line = {"name": name, "trials": len(study.trials), "pick": pick.number, "losses": again}
        add_line(arguments.out, line)
        print(f"{name}: trial {pick.number} of {len(study.trials)}, loss {np.mean(again):.4f}", flush=True)
    means = np.array([np.mean(losses[name]) for name in studies])
    error = means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else float("nan")
    print(f"{arguments.strategy}: {means.mean():.4f} ± {error:.4f}, {len(means)} studies")


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for command in (twins, replay, surrogate, verify):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--jobs", type=int, default=1)
        if command is not verify:
            sub.add_argument("storage")
            sub.add_argument("twins", type=Path)
            sub.add_argument("--name")
        if command is twins:
            sub.add_argument("--count", type=int, default=100_000)
        if command is replay:
            sub.add_argument("--orders", type=int, default=1500)
            sub.add_argument("--budgets", type=int, nargs="+", default=[8, 15, 30])
        if command in (surrogate, verify):
            sub.add_argument("--seeds", type=int, default=20)
            sub.add_argument("--budget", type=int, default=113)
        if command is surrogate:
            sub.add_argument("--samplers", nargs="+", default=list(STRATEGIC_SAMPLERS))
            sub.add_argument("--rules", nargs="+", help="by name, as replay prints them")
            sub.add_argument("studies", type=Path, help="where simulated studies are kept")
        if command is verify:
            sub.add_argument("--storage", default="sqlite:///verify.db")
            sub.add_argument("--dataset", default="digits")
            sub.add_argument("--strategy", default="tpe/halving/val_accuracy/cover")
            sub.add_argument("--runs", type=int, default=10, help="fresh seeds for each pick")
            sub.add_argument("--out", type=Path, default=Path("verify.jsonl"))
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()

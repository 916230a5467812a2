"""Whether the answers of experiments hold: simulated experiments whose truth is known, in tables.

    python benchmarks/experiments.py [--runs 2000] [--only false_alarms power ...]

- false_alarms: how often equal arms are called different when looked at 20 times, by each kind of test;
- verdicts: how often the whole analysis, asked 20 times, decides between equal arms;
- power: how often a planted effect is found at the planned size, and how often intervals hold the truth;
- variance_reduction: what the past takes off the variance, reported and true;
- sample_ratio: false alarms, and how soon a fault in allocation is seen;
- phases: a ramp from 10% to 50% while users change: pooled, by the phases' own variances, and as done here;
- interleaving: users that two rankers need to be told apart, interleaved and by A/B;
- quantiles: medians and 99th percentiles of single values, clustered by user and not;
- bandits: what Thompson sampling saves, and whether its interval holds.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from experiment_quantiles import quantiles
from experiment_worlds import (
    Draw,
    Plan,
    Visits,
    clicks,
    clicks_with_past,
    conversions,
    correlated,
    revenue,
    session_seconds,
    simulated,
)
from numpy.typing import NDArray
from scipy import stats

from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.bandit import allocation, reward_difference
from rec_engine.experiments.confidence_sequence import always_valid_p_value
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.effects import compare
from rec_engine.experiments.estimates import estimates
from rec_engine.experiments.interleaving import preference
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.moments import DoubleArray, Moments, moments
from rec_engine.experiments.naive import naive_z
from rec_engine.experiments.power import Baseline, users_needed
from rec_engine.experiments.results import Analysis, Look
from rec_engine.experiments.sample_ratio import CHI_SQUARE_ALARM, SEQUENTIAL_ALARM, log_odds
from rec_engine.experiments.sequential import Path, bounds
from rec_engine.experiments.variance_reduction import adjusted

LEVEL = 0.05
METRICS: dict[str, Draw] = {
    "ctr": clicks,
    "conversion": conversions,
    "revenue": revenue,
    "session_seconds": session_seconds,
}
RANKERS = {"close": (0.20, 0.15), "apart": (0.30, 0.10), "equal": (0.15, 0.15)}
"""Noise with which two rankers know what is relevant."""
Row = dict[str, float | str]


def false_alarms(n_runs: int, *, n_looks: int = 20, users_an_arm: int = 2_000, seed: int = 0) -> list[Row]:
    """Return, for each metric, the share of A/A experiments in which any look is significant."""
    rows: list[Row] = []
    for name, draw in METRICS.items():
        of = simulated(draw, Plan(n_runs, n_looks, users_an_arm // n_looks), np.random.default_rng(seed))
        effect = compare(estimates(of), 1)
        p_values, z = effect.p_value(), effect.z()
        naive = naive_z(of, 1) if name == "ctr" else effect.statistic()
        fractions = np.arange(1, n_looks + 1) / n_looks
        planned = slice(n_looks // 5 - 1, n_looks, n_looks // 5)
        lasting = always_valid_p_value(z, fractions, LEVEL)
        rows.append(
            {
                "metric": name,
                "naive z, any look": _share(np.abs(naive) > 1.96),
                "naive z, end": float((np.abs(naive[:, -1]) > 1.96).mean()),
                "clustered t, any look": _share(p_values < LEVEL),
                "clustered t, end": float((p_values[:, -1] < LEVEL).mean()),
                "5 planned looks": _share(np.abs(z[:, planned]) > bounds(Path.equal(5), LEVEL)),
                "20 planned looks": _share(np.abs(z) > bounds(Path.equal(n_looks), LEVEL)),
                "always valid": _share(lasting < LEVEL),
                "uniform: KS p": float(stats.kstest(p_values[:, -1], "uniform").pvalue),
            }
        )
    return rows


def verdicts(n_runs: int, *, n_looks: int = 20, users_a_look: int = 200, seed: int = 7) -> list[Row]:
    """Return how often the default design decides between equal arms, asked 20 times, CTR and revenue both primary."""
    metrics = (
        Metric(name="ctr", numerator="clicks", denominator="impressions", role="primary"),
        Metric(name="revenue", numerator="revenue", role="primary"),
        Metric(name="session_seconds", numerator="session_seconds", role="guardrail"),
    )
    design = Design(metrics=metrics, planned_users=n_looks * users_a_look, min_sample_size=100)
    rng, shape = np.random.default_rng(seed), (n_looks * users_a_look,)
    counted = dict.fromkeys(("deploy", "keep: primary", "keep: guardrail", "sample ratio", "no clear winner"), 0)
    for _ in range(n_runs):
        clicked, shown = clicks(rng, shape, np.ones(1))
        totals = {"clicks": clicked, "impressions": shown, "revenue": revenue(rng, shape, np.ones(1))[0]}
        totals["session_seconds"] = session_seconds(rng, shape, np.ones(1))[0]
        arm, phase = rng.integers(0, 2, shape[0]).astype(np.int32), np.zeros(shape[0], dtype=np.int32)
        looks: list[Look] = []
        for n in range(users_a_look, shape[0] + 1, users_a_look):
            until = {name: column[:n] for name, column in totals.items()}
            users = Measurements(("control", "treatment"), arm[:n], phase[:n], np.array([[0.5, 0.5]]), until, days=7)
            found = analyze(design, users, looks)
            looks += [found.look] if found.look else []
            if found.recommendation.action != "continue_running":
                break
        counted[_kind(found)] += 1
    return [{action: n / n_runs for action, n in counted.items()}]


def _kind(of: Analysis) -> str:
    """Return what an analysis of equal arms came to."""
    if of.srm.status == "failed":
        return "sample ratio"
    if of.recommendation.action == "keep_control":
        return "keep: guardrail" if of.recommendation.reason.startswith("Guardrail") else "keep: primary"
    return "no clear winner" if of.recommendation.action == "no_clear_winner" else "deploy"


def _share(significant: DoubleArray | NDArray[np.bool_]) -> float:
    """Return the share of runs in which any look of (n_runs, n_looks) is."""
    return float(np.asarray(significant).any(axis=1).mean())


def power(n_runs: int, *, metrics: Sequence[str] = tuple(METRICS), effect: float = 0.05, seed: int = 1) -> list[Row]:
    """Return, for each metric, how often the effect is found at the size planned for 80%, and coverage."""
    rows: list[Row] = []
    for name in metrics:
        draw, rng = METRICS[name], np.random.default_rng(seed)
        metric = Metric(name=name, numerator="n", role="primary")
        once = Design(metrics=(metric,), method="fixed", minimum_effect=effect)
        often = Design(metrics=(metric,), planned_looks=5, minimum_effect=effect)
        past = simulated(draw, Plan(1, 1, 200_000), rng)
        of = _baseline(past, is_share=name == "conversion")
        n_once, n_often = (users_needed(of, design, (0.5, 0.5)) for design in (once, often))
        single = compare(estimates(simulated(draw, Plan(n_runs, 1, n_once // 2, effect), rng)), 1)
        planned = compare(estimates(simulated(draw, Plan(n_runs, 5, n_often // 10, effect), rng)), 1)
        truth = float(past.mean[0, 0, 0, :, 0].sum() / past.mean[0, 0, 0, :, 1].sum())
        covered = np.abs(single.statistic(1 + effect)) <= single.critical(1.959963984540054)
        rows.append(
            {
                "metric": name,
                "users": float(n_once),
                "found": float((single.p_value() < LEVEL).mean()),
                "users, 5 looks": float(n_often),
                "found, 5 looks": _share(np.abs(planned.z()) > bounds(Path.equal(5), LEVEL)),
                "interval of the relative effect": float(covered.mean()),
                "interval of the difference": _covered(
                    single.interval(single.critical(1.959963984540054)), truth * effect
                ),
            }
        )
    return rows


def _covered(interval: tuple[DoubleArray, DoubleArray], truth: float) -> float:
    return float(((interval[0] <= truth) & (truth <= interval[1])).mean())


def _baseline(of: Moments, *, is_share: bool) -> Baseline:
    each = estimates(of)
    variance = float((each.variance * each.n).mean())
    return Baseline(float(each.value.mean()), variance, is_share)


def variance_reduction(n_runs: int, *, users_an_arm: int = 500, seed: int = 2) -> list[Row]:
    """Return what CUPED reports to take off the variance, what it takes off over runs, and the squared correlation."""
    worlds: dict[str, Draw] = {f"mean, rho {rho}": correlated(rho) for rho in (0.3, 0.6, 0.9)}
    rows: list[Row] = []
    for name, draw in (worlds | {"ctr": clicks_with_past}).items():
        rng = np.random.default_rng(seed)
        of = simulated(draw, Plan(n_runs, 1, users_an_arm), rng)
        large = adjusted(simulated(draw, Plan(1, 1, 500_000), rng))
        with_past = adjusted(of)
        plain, less = compare(estimates(of), 1), compare(with_past.estimates, 1)
        rows.append(
            {
                "metric": name,
                "rho squared": float(large.reduction.mean()),
                "reported": float(with_past.reduction.mean()),
                "over runs": float(1 - less.difference.var() / plain.difference.var()),
                "false alarms": float((less.p_value() < LEVEL).mean()),
            }
        )
    return rows


def sample_ratio(n_runs: int, *, n_looks: int = 28, seed: int = 3) -> list[Row]:
    """Return how often the sample-ratio alarm is raised by each number of users, for faults of each size."""
    rows: list[Row] = []
    for lost, last in ((0.0, 1_000_000), (0.01, 1_000_000), (0.05, 40_000)):
        rng = np.random.default_rng(seed)
        share = (1 - lost) / (2 - lost)
        users = np.full((n_runs, n_looks), last // n_looks)
        treated = rng.binomial(users, share).cumsum(axis=1)
        n = np.stack([users.cumsum(axis=1) - treated, treated], axis=-1).astype(np.float64)
        odds = log_odds(n[:, :, None], np.array([[0.5, 0.5]]))
        z = (n[..., 1] - n[..., 0]) / np.sqrt(n.sum(axis=-1))
        by_sequence, by_square = np.exp(-odds) < SEQUENTIAL_ALARM, 2 * stats.norm.sf(np.abs(z)) < CHI_SQUARE_ALARM
        rows.append(
            {
                "lost in one arm": f"{lost:.0%}",
                "users": float(last),
                "sequential": _share(by_sequence),
                "chi-square at .0005": _share(by_square),
                "either": _share(by_sequence | by_square),
                "chi-square at .05": _share(2 * stats.norm.sf(np.abs(z)) < LEVEL),
            }
        )
    return rows


def phases(n_runs: int, *, users: tuple[int, int] = (2_000, 1_000), seed: int = 4) -> list[Row]:
    """Return mean difference (truth 0), in standard errors, and false alarms of a ramp while users change."""
    rng = np.random.default_rng(seed)
    shares = (0.1, 0.5)
    counts = [rng.binomial(n, share, n_runs) for n, share in zip(users, shares, strict=True)]
    cells = [
        [_skewed(rng, n - treated, level), _skewed(rng, treated, level)]
        for n, treated, level in zip(users, counts, (0.0, 1.0), strict=True)
    ]
    n, mean, variance = (
        np.array([[arm[place] for arm in phase] for phase in cells]).transpose(2, 0, 1) for place in range(3)
    )
    of = Moments(n, np.stack([mean, np.ones_like(mean)], axis=-1), _with_ones(variance))
    ours = compare(estimates(of), 1)
    total = n.sum(axis=1)
    means = (n * mean).sum(axis=1) / total
    squares = ((n - 1) * variance + n * (mean - means[:, None]) ** 2).sum(axis=1) / (total - 1)
    own = 1 / (variance / n).sum(axis=-1)
    weighed = (own * (mean[..., 1] - mean[..., 0])).sum(axis=1) / own.sum(axis=1)
    found = {
        "pooled": (means[:, 1] - means[:, 0]) / np.sqrt((squares / total).sum(axis=1)),
        "weighed by own variances": weighed * np.sqrt(own.sum(axis=1)),
        "weighed as here": ours.statistic(),
    }
    return [
        {"combined": name, "mean z": float(z.mean()), "false alarms": float((np.abs(z) > 1.96).mean())}
        for name, z in found.items()
    ]


def _skewed(rng: np.random.Generator, n: NDArray[np.int64], level: float) -> DoubleArray:
    """Return (3, n_runs): users, mean and variance of lognormal figures."""
    figures = [rng.lognormal(level, 1.2, size) for size in n]
    return np.array([n, [each.mean() for each in figures], [each.var(ddof=1) for each in figures]])


def _with_ones(variance: DoubleArray) -> DoubleArray:
    covariance = np.zeros((*variance.shape, 2, 2))
    covariance[..., 0, 0] = variance
    return covariance


def interleaving(n_users: int = 6_000, *, pairs: Sequence[str] = tuple(RANKERS), seed: int = 5) -> list[Row]:
    """Return users needed for 80% power by A/B (on CTR) and by interleaving, for pairs of rankers of known quality."""
    rows: list[Row] = []
    sure = (stats.norm.isf(LEVEL / 2) + stats.norm.isf(0.2)) ** 2
    for name in pairs:
        noises, rng = RANKERS[name], np.random.default_rng(seed)
        visits = Visits.drawn(rng, n_users)
        rankings = [visits.ranked(rng, noise) for noise in noises]
        columns = [visits.clicks(rng, ranking).sum(axis=1).astype(np.float64) for ranking in rankings]
        arm = rng.integers(0, 2, n_users)[visits.user]
        user_of = [np.bincount(visits.user[arm == at], minlength=n_users) for at in (0, 1)]
        hits = [np.bincount(visits.user[arm == at], columns[at][arm == at], n_users) for at in (0, 1)]
        seen = [of > 0 for of in user_of]
        cells = np.concatenate([np.full(int(of.sum()), at) for at, of in enumerate(seen)])
        above = np.concatenate([hits[at][seen[at]] for at in (0, 1)])
        below = np.concatenate([10.0 * user_of[at][seen[at]] for at in (0, 1)])
        effect = compare(estimates(moments([above, below], cells, (1, 2))), 1)
        truth = columns[1].mean() - columns[0].mean()
        by_ab = sure * float(effect.standard_error) ** 2 * n_users / (truth / 10) ** 2
        first, second = visits.credits(rng, rankings)
        said = preference(visits.user, first, second)
        if said.preference is None or said.se is None or said.p_value is None:
            raise ValueError("nobody clicked")
        interleaved = sure * (said.se / said.preference) ** 2 * n_users
        is_equal = name == "equal"
        rows.append(
            {
                "rankers": name,
                "ctr": f"{columns[0].mean() / 10:.4f} / {columns[1].mean() / 10:.4f}",
                "users by A/B": float("nan") if is_equal else by_ab,
                "users interleaved": float("nan") if is_equal else interleaved,
                "fewer by": float("nan") if is_equal else by_ab / interleaved,
                "p by A/B": float(effect.p_value()),
                "p interleaved": said.p_value,
            }
        )
    return rows


def bandits(n_runs: int, *, n_batches: int = 20, batch: int = 500, seed: int = 6) -> list[Row]:
    """Return regret against equal shares, coverage of the interval, and the naive z-test's false alarms."""
    rows: list[Row] = []
    for truth in ((0.05, 0.05), (0.05, 0.06)):
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(n_runs):
            successes, trials = np.zeros((n_batches, 2)), np.zeros((n_batches, 2))
            for at in range(n_batches):
                shares = allocation(successes.sum(axis=0), trials.sum(axis=0), 0.05)
                treated = rng.binomial(batch, shares[1])
                trials[at] = batch - treated, treated
                successes[at] = rng.binomial(trials[at].astype(np.int64), truth)
            said = reward_difference(successes, trials, 1)
            total, rate = trials.sum(axis=0), successes.sum(axis=0) / trials.sum(axis=0)
            naive = abs(rate[1] - rate[0]) / np.sqrt((rate * (1 - rate) / total).sum())
            if said.ci is None or said.p_value is None:
                raise ValueError("no batch has both arms")
            covered = said.ci[0] <= truth[1] - truth[0] <= said.ci[1]
            found.append((covered, said.p_value < LEVEL, naive > 1.96, total[0] / total.sum() * 2))
        means = np.array(found, dtype=np.float64).mean(axis=0)
        rows.append(
            {
                "shares": f"{truth[0]:.0%} / {truth[1]:.0%}",
                "regret of equal shares": float(means[3]) if truth[0] != truth[1] else float("nan"),
                "interval covers": float(means[0]),
                "found": float(means[1]),
                "found by naive z": float(means[2]),
            }
        )
    return rows


TABLES: dict[str, Callable[[int], list[Row]]] = {
    "false_alarms": false_alarms,
    "verdicts": lambda n_runs: verdicts(n_runs // 2),
    "power": power,
    "variance_reduction": variance_reduction,
    "sample_ratio": sample_ratio,
    "phases": phases,
    "interleaving": lambda _: interleaving(),
    "quantiles": quantiles,
    "bandits": lambda n_runs: bandits(n_runs // 2),
}


def show(rows: list[Row]) -> str:
    """Return a table in Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES))
    arguments = parser.parse_args()
    for name in arguments.only:
        started = time.perf_counter()
        table = show(TABLES[name](arguments.runs))
        print(f"\n{name}, {arguments.runs:,} runs, {time.perf_counter() - started:.0f} s\n\n{table}", flush=True)


if __name__ == "__main__":
    main()

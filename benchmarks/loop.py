"""The closed loop in several worlds: how often what one of them shows holds in the others.

    python benchmarks/loop.py --seeds 5

Each world takes as long as `rec-engine simulate --loop`. Run it with OMP_NUM_THREADS=1.
"""

import argparse

from rec_engine.evaluation.statistics import Estimate
from rec_engine.pipeline.closed_loop import LoopSettings
from rec_engine.pipeline.loop_experiment import ALIKE, DIFFERENT
from rec_engine.pipeline.loop_report import LoopReport, compare_loops, table


def main() -> None:
    """Go round in every world and print its report, then what holds in how many of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    reports = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        report = compare_loops(LoopSettings(n_rounds=arguments.rounds, seed=seed))
        print(f"seed {seed}, {report.seconds:,.0f} s", *table(report), sep="\n", flush=True)
        reports.append(report)
    for name, held in _held(reports).items():
        print(f"{name}: in {sum(held)} of {len(held)} worlds")


def _held(reports: list[LoopReport]) -> dict[str, list[bool]]:
    """Return claim to whether it held, for each report that can say."""
    last = [report.figures.rounds[-1] for report in reports]
    trials = [report.trial for report in reports if report.trial]
    corrections = [trial.correction for trial in trials if trial.correction]
    estimates = [(trial.forecast.estimate, trial.forecast.by_truth.mean) for trial in trials if trial.forecast.estimate]
    gains = [report.exploration_gain for report in reports if report.exploration_gain]
    return {
        "regret fell from the first round to the last": [_is_below(report.figures.learned) for report in reports],
        "the last round beats the first version": [each.beyond_first.low > 0 for each in last],
        "the last round beats popularity": [each.beyond_popularity.low > 0 for each in last],
        "exploration lowers the regret of the last round": [_is_below(gain) for gain in gains],
        "correction for position raises the rank correlation": [each.correlation_gain.low > 0 for each in corrections],
        "correction for position lowers regret": [_is_below(each.regret_gain) for each in corrections],
        "the A/B test finds the spoilt version": [trial.findings[DIFFERENT].is_found for trial in trials],
        "the A/A test finds a difference": [trial.findings[ALIKE].is_found for trial in trials],
        "the interval from the log holds the truth": [
            estimate.low <= truth <= estimate.high for estimate, truth in estimates
        ],
    }


def _is_below(estimate: Estimate) -> bool:
    return estimate.high < 0


if __name__ == "__main__":
    main()

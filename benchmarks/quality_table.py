"""The tables of `benchmarks/quality.py`, as Markdown: made of the stored lists, so that printing trains nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from quality_protocols import BEST, CHANCE, JUDGED, PROTOCOLS, Case, Goal, Protocol, Question

from rec_engine.data.dataset import IntArray, Interactions
from rec_engine.evaluation.beyond_accuracy import beyond_accuracy
from rec_engine.evaluation.evaluator import accuracy, reachable_targets
from rec_engine.evaluation.metrics import DoubleArray, catalogue_coverage, exposure_counts, gini, mean_novelty
from rec_engine.evaluation.statistics import bootstrap_mean, paired_bootstrap
from rec_engine.retrieval.categories import category_matrix, category_names

PRIMARY = "ndcg@10"
KS = (10, 20)
BEYOND = ("coverage@10", "diversity@10", "novelty@10", "gini@10", "miscalibration@10", "popularity_lift@10")
BEYOND_OF = ("P1", "P2")


Asked = tuple[IntArray, Interactions]
"""The users that are asked in a round, and what all of them should find."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one question, over all its seeds.

    Attributes:
        name: of the model.
        per_user: metric to (n_users,) whose mean is the metric; the mean of the seeds.
        shares: (n_users,) how often each user is asked, beside the mean; a mean over targets is a ratio of both.
        catalogue: metric to its value over all lists.
        note: what the model says about itself, and what it cost.
    """

    name: str
    per_user: dict[str, DoubleArray]
    shares: DoubleArray
    catalogue: dict[str, float]
    note: str

    def mean(self, metric: str) -> float:
        """Return the value of either kind of metric."""
        return self.catalogue[metric] if metric in self.catalogue else float(np.nanmean(self.per_user[metric]))


def print_tables(protocols: Sequence[str], data: Path, results: Path) -> None:
    """Print every question's table, then what is beyond accuracy, then what was to be reached and what was."""
    goals, beyond = [], []
    for name in protocols:
        protocol = PROTOCOLS[name]
        accounts = _accounts(name, results)
        if not accounts:
            print(f"\n{name}: nothing is measured yet\n")
            continue
        case = protocol.build(data / protocol.data, 0)
        _check_split(accounts, case)
        rows_by_question = []
        for place, question in enumerate(case.questions):
            rows = _rows(place, question, case, accounts, results)
            rows_by_question.append(rows)
            _print_question(f"{name}, {protocol.title}, {protocol.data}: {question.name}", protocol, question, rows)
        if name in BEYOND_OF:
            beyond += [(name, row) for row in rows_by_question[0]]
        goals += [_goal_cells(name, goal, case, rows_by_question) for goal in protocol.goals]
        print(f"{_machines(accounts)}; split {case.split.fingerprint[:12]}\n")
    if beyond:
        print("\nP7, beyond accuracy\n")
        _print_table(["protocol", "model", *BEYOND], [_beyond_cells(*pair) for pair in beyond])
    print("\nWhat was to be reached, and what the whole path reached\n")
    _print_table(["protocol", "question", "metric", "floor", "aim", "reached", "held"], goals)


def _accounts(protocol: str, results: Path) -> list[dict[str, object]]:
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(f"{protocol}.*.json")))
    return [account for account in found if "models" in account]


def _check_split(accounts: list[dict[str, object]], case: Case) -> None:
    strange = [account for account in accounts if account["split"] != case.split.fingerprint]
    if strange:
        raise SystemExit(f"{strange[0]['protocol']}: measured on another split than this data gives")


def _rows(place: int, question: Question, case: Case, accounts: list[dict[str, object]], results: Path) -> list[Row]:
    """Return a row a model, ours last."""
    models: dict[str, list[dict[str, object]]] = {}
    for account in accounts:
        for model in account["models"]:  # type: ignore[attr-defined]
            models.setdefault(model["name"], []).append(model)
    rows, asked = [], _asked(question, case.dataset.n_items)
    for name, of_seeds in models.items():
        rounds = [_stored(results / str(model["lists"]), place, question) for model in of_seeds]
        if all(rounds):
            rows.append(_row(name, asked, question.rounds[0].history, case, rounds, _note(of_seeds)))
    return sorted(rows, key=lambda row: (row.name == JUDGED, row.mean(PRIMARY)))


def _stored(file: Path, place: int, question: Question) -> list[IntArray]:
    """Return the lists of every round; none where the model does not answer this question."""
    with np.load(file, allow_pickle=False) as lists:
        keys = [f"{place}.{turn}" for turn in range(len(question.rounds))]
        return [lists[key] for key in keys] if keys[0] in lists else []


def _row(  # noqa: PLR0913 - the lists, and all that they are judged by
    name: str, asked: list[Asked], history: Interactions, case: Case, seeds: list[list[IntArray]], note: str
) -> Row:
    n_items = case.dataset.n_items
    measured = [_per_user(asked, rounds, n_items) for rounds in seeds]
    per_user = {metric: np.mean([of[metric] for of in measured], axis=0) for metric in measured[0]}
    ranked = np.concatenate(seeds[0])[:, :10]
    users = asked[0][0]
    names = category_names(case.dataset.items["categories"])
    categories = category_matrix(case.dataset.items["categories"], names, case.dataset.n_items)
    beyond = beyond_accuracy(seeds[0][0][users], users, history, categories, 10)
    met = np.unique(history.user_codes.astype(np.int64) * n_items + history.item_codes) % n_items
    users_by_item = np.bincount(met, minlength=n_items).astype(np.float32)
    catalogue = {
        "coverage@10": catalogue_coverage(ranked, n_items),
        "gini@10": gini(exposure_counts(ranked, n_items)),
        "novelty@10": mean_novelty(ranked, users_by_item, int((np.diff(history.starts) > 0).sum())),
        **{metric: float(np.nanmean(values)) for metric, values in beyond.items() if np.isfinite(values).any()},
    }
    n_asked = np.bincount(np.concatenate([users for users, _ in asked]))
    shares = n_asked[n_asked > 0] / n_asked[n_asked > 0].mean()
    return Row(name, per_user, shares, catalogue, note)


def _per_user(asked: list[Asked], rounds: list[IntArray], n_items: int) -> dict[str, DoubleArray]:
    """Return metric to (n_users,) whose mean is the mean over targets: users are what is resampled, targets are not."""
    sums: dict[str, DoubleArray] = {}
    n_asked = np.zeros(len(rounds[0]))
    for (users, targets), ranked in zip(asked, rounds, strict=True):
        n_asked[users] += 1
        for metric, values in accuracy(ranked[users], users, targets, n_items=n_items, ks=KS).items():
            sums.setdefault(metric, np.zeros(len(n_asked)))[users] += values
    present = n_asked > 0
    scale = present.sum() / n_asked.sum()
    return {metric: summed[present] * scale for metric, summed in sums.items()}


def _asked(question: Question, n_items: int) -> list[Asked]:
    """Return the users that are asked in each round, and what they should find."""
    found = []
    for task in question.rounds:
        targets, _ = reachable_targets(task, n_items)
        has_both = (np.diff(task.history.starts) > 0) & (np.diff(targets.starts) > 0)
        found.append((np.flatnonzero(has_both).astype(np.int32), targets))
    return found


def _note(of_seeds: list[dict[str, object]]) -> str:
    minutes = np.mean([float(str(model["fit_seconds"])) for model in of_seeds]) / 60
    memory = max(int(str(model["peak_mib"])) for model in of_seeds)
    seeds = f", {len(of_seeds)} seeds" if len(of_seeds) > 1 else ""
    return f"{minutes:.1f} min, {memory / 1024:.1f} GiB{seeds}; {of_seeds[0]['note']}".rstrip("; ")


def _print_question(title: str, protocol: Protocol, question: Question, rows: list[Row]) -> None:
    if not rows:
        return
    n_users = len(rows[-1].per_user[PRIMARY])
    n_targets = sum(len(task.targets) for task in question.rounds)
    print(f"\n{title}: {n_users:,} users, {n_targets:,} targets\n")
    judged = next((row for row in rows if row.name == JUDGED), rows[-1])
    metrics = protocol.metrics
    cells = []
    for row in rows:
        gain = ""
        if row is not judged:
            found = paired_bootstrap(judged.per_user[metrics[0]], row.per_user[metrics[0]]).relative
            gain = f"{found.mean:+.1%} [{found.low:+.1%}, {found.high:+.1%}]"
        cells.append([row.name, *(_cell(row, metric) for metric in metrics), gain, row.note])
    _print_table(["model", *metrics, f"gain of {judged.name} in {metrics[0]}", "fit: time, memory, setting"], cells)


def _cell(row: Row, metric: str) -> str:
    if metric in row.catalogue:
        return f"{row.catalogue[metric]:.3f}"
    # Of users who are asked more often than others the sums and the numbers of questions are drawn together.
    found = paired_bootstrap(row.per_user[metric], row.shares).relative
    return f"{1 + found.mean:.4f} ±{found.half_width:.4f}"


def _beyond_cells(protocol: str, row: Row) -> list[str]:
    return [protocol, row.name, *(f"{row.catalogue[metric]:.3f}" for metric in BEYOND)]


def _goal_cells(protocol: str, goal: Goal, case: Case, rows_by_question: list[list[Row]]) -> list[str]:
    question, rows = case.questions[goal.question], rows_by_question[goal.question]
    unit = f" x {goal.beside}" if goal.beside else ""
    head = [protocol, question.name, goal.metric, *(f"{bound:g}{unit}" if bound else "" for bound in goal.bounds)]
    judged = next((row for row in rows if row.name == JUDGED), None)
    if judged is None:
        return [*head, "not measured", ""]
    reached, low, text = _reached(judged, goal, rows, question)
    held = [name for name, bound in zip(("floor", "aim"), goal.bounds, strict=True) if bound and reached >= bound]
    if goal.beside and goal.floor and not low > goal.floor and "floor" in held:
        held[held.index("floor")] = "floor (its interval does not exclude it)"
    return [*head, text, ", ".join(held) or "no"]


def _reached(judged: Row, goal: Goal, rows: list[Row], question: Question) -> tuple[float, float, str]:
    """Return what was reached, the lower end of its interval, and both as text."""
    if not goal.beside:
        value = judged.mean(goal.metric)
        return value, value, _cell(judged, goal.metric)
    if goal.beside == CHANCE:
        n_shown = int(question.only.sum()) if question.only is not None else 0
        chance = int(goal.metric.rpartition("@")[2]) / max(n_shown, 1)
        found = bootstrap_mean(judged.per_user[goal.metric] / chance)
        return found.mean, found.low, f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
    others = [row for row in rows if not row.name.startswith(("two-tower", "two-stage"))]
    if goal.beside != BEST:
        others = [row for row in rows if row.name == goal.beside]
    if not others:
        return float("nan"), float("nan"), "not measured"
    best = max(others, key=lambda row: row.mean(goal.metric))
    ratio = paired_bootstrap(judged.per_user[goal.metric], best.per_user[goal.metric]).relative
    text = f"{1 + ratio.mean:.3f} [{1 + ratio.low:.3f}, {1 + ratio.high:.3f}] beside {best.name}"
    return 1 + ratio.mean, 1 + ratio.low, text


def _machines(accounts: list[dict[str, object]]) -> str:
    machines = sorted({f"{account['machine']}, commit {account['commit']}" for account in accounts})
    return "; ".join(machines)


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |")

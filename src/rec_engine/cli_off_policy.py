"""`rec-engine evaluate --off-policy`: versions judged from the log of the one that served."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rec_engine.bundle import open_bundle
from rec_engine.errors import ConfigError
from rec_engine.evaluation.off_policy import PolicyValue, Value
from rec_engine.pipeline.counterfactual import Judged, judge_from_log
from rec_engine.utils.console import say, show

MAX_POSITIONS = 20


def evaluate_from_log(
    models: Sequence[tuple[str, Path]], store_url: str | None, *, exploration: float, positions: int, quietly: bool
) -> str:
    """Print what each version would have earned, clicks an answer, the best one first, and return it as JSON.

    Quietly, nothing is printed.

    Raises:
        ConfigError: if a flag is missing or out of range.
        DataError: if the log has no answer to judge by.
    """
    if store_url is None:
        raise ConfigError("--off-policy needs --events", hint="the URL of the event store, as in store.url")
    if not (exploration > 0 and 1 <= positions <= MAX_POSITIONS):
        raise ConfigError(f"--exploration is above 0, --positions lies between 1 and {MAX_POSITIONS}")
    bundles = {name or path.name: open_bundle(path) for name, path in models}
    judged = judge_from_log(bundles, store_url, exploration=exploration, n_positions=positions)
    judged.sort(key=lambda each: each.value.dr.mean if each.value.dr else float("-inf"), reverse=True)
    if not quietly:
        _show(judged, positions)
    return json.dumps({"off_policy": _plain(judged)}, indent=2, allow_nan=False)


def _show(judged: Sequence[Judged], positions: int) -> None:
    show(_table(judged, positions))
    for each in judged:
        if each.n_left_out:
            say(f"{each.name} could not be asked {each.n_left_out:,} of the requests, which are left out.")
        for refusal in each.value.refusals:
            say(f"{each.name} cannot be judged: {refusal}.")
    say(_last_line(judged))


def _plain(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """Return what JSON can hold of it, intervals as [mean, low, high]."""
    return [
        {
            "name": each.name,
            "answers": each.n_answers,
            "left_out": each.n_left_out,
            **{name: _numbers(getattr(each.value, name)) for name in ("logged", "ips", "snips", "dr")},
            "effective_users": [round(float(n), 3) for n in each.value.effective_users if n == n],
            "refusals": list(each.value.refusals),
        }
        for each in judged
    ]


def _table(judged: Sequence[Judged], positions: int) -> Table:
    what = "clicks an answer" if positions == 1 else f"clicks on the first {positions} items of an answer"
    table = Table(title=f"{what}, 95% intervals over users", box=SIMPLE_HEAD)
    for column in ("version", "answers", "worth users", "as logged", "doubly robust", "self-normalised", "IPS"):
        table.add_column(column, justify="left" if column == "version" else "right", no_wrap=True)
    for each in judged:
        value = each.value
        numbers = (value.logged, value.dr, value.snips, value.ips)
        table.add_row(each.name, f"{each.n_answers:,}", _evidence(value), *(_text(number) for number in numbers))
    return table


def _evidence(value: PolicyValue) -> str:
    worth = float(value.effective_users[-1])
    return f"{worth:,.0f}" if worth == worth else "-"


def _text(value: Value | None) -> str:
    return "-" if value is None else f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _numbers(value: Value | None) -> list[float] | None:
    return None if value is None else [value.mean, value.low, value.high]


def _last_line(judged: Sequence[Judged]) -> str:
    best = judged[0]
    if best.value.dr is None or best.value.logged is None:
        return (
            "The log cannot judge any of them. Next: an experiment, or more exploration (recommendations.exploration)."
        )
    is_better = best.value.dr.low > best.value.logged.mean
    return (
        f"{best.name} would have earned {best.value.dr.mean:.4f} where {best.value.logged.mean:.4f} was earned"
        f"{'' if is_better else ', which its interval does not tell apart'}. Next: an experiment, which measures it."
    )

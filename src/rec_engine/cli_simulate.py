"""`rec-engine simulate`: a world whose truth is known, as files or as visitors of a running service."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from cyclopts import Parameter

from rec_engine.errors import ConfigError
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.console import say

if TYPE_CHECKING:
    from rec_engine.data.simulated_fit import Match
    from rec_engine.pipeline.closed_loop import LoopSettings
    from rec_engine.pipeline.replay import Visitors
    from rec_engine.pipeline.simulate import PolicyName, Simulation

SHOP, LOOP_SHOP = (2_000, 1_000, 150_000), (500, 300, 50_000)
"""Users, items and interactions of half a year."""
MAX_ROUNDS, MAX_EXPLORATION = 50, 10
MAX_RATE, MAX_SECONDS, MAX_EXPONENT, MAX_CONNECTIONS, MAX_ITEMS = 10_000, 86_400, 5, 1_000, 100


def simulate(  # noqa: PLR0913 - flags
    *,
    output: Path | None = None,
    against: str | None = None,
    loop: bool = False,
    dataset: str | None = None,
    train_data: Path | None = None,
    items_data: Path | None = None,
    users_data: Path | None = None,
    data_dir: Path = Path("data"),
    offline: bool = False,
    users: int | None = None,
    items: int | None = None,
    interactions: int | None = None,
    policy: Literal["organic", "random", "popularity", "oracle"] = "organic",
    rate: float = 20.0,
    duration: float = 60.0,
    exponent: float = 1.0,
    connections: int = 32,
    k: Annotated[int, Parameter(name=("-k", "--k"))] = 10,
    seed: int = 0,
    visitors_seed: int = 0,
    rounds: int = 5,
    exploration: float = 0.1,
) -> None:
    """Simulate a shop whose truth is known; exit with 1 if a running service left one of its visitors unanswered.

    Without --dataset or --train-data it is the demo shop, which a model of `train --dataset demo` was trained on.

    Args:
        output: folder for interactions, impressions, users, items and the truth, as Parquet; beside them fit.html
            where the world is like a dataset.
        against: address of a running service, such as http://127.0.0.1:8000; REC_ENGINE_API_KEY holds the key where it
            asks for one.
        loop: serve, collect, retrain and promote in the demo shop, round after round, and write loop.json and loop.html
            to --output, which say what came of it.
        dataset: a world like this dataset: its users and items, as active and as popular.
        train_data: a world like these interactions of your own.
        items_data: their items.
        users_data: their users.
        data_dir: where MovieLens lies or is downloaded to.
        offline: do not use the network.
        users: of the demo shop: 2,000, with --loop 500.
        items: of the demo shop: 1,000, with --loop 300.
        interactions: of the demo shop in half a year, about: 150,000, with --loop 50,000.
        policy: of --output: who decides what is shown.
        rate: of --against: visitors a second, whatever the service does.
        duration: of --against: seconds.
        exponent: of --against: user r comes in proportion to 1 / r ** exponent.
        connections: of --against: requests that may be on their way at once.
        k: of --against: items a page.
        seed: of the world; a service is visited from the world that its model was trained on.
        visitors_seed: of --against: who comes when.
        rounds: of --loop: versions that are served.
        exploration: of --loop: temperature of the draw; above 0 a loop without it goes beside.
    """
    from rec_engine.pipeline.simulate import demo_world, world_like
    from rec_engine.pipeline.sources import DataFiles, load_source

    if (output is None) == (against is None):
        raise ConfigError("simulate takes either --output or --against", hint="a folder, or the address of a service")
    sizes = tuple(
        given if given is not None else usual
        for given, usual in zip((users, items, interactions), LOOP_SHOP if loop else SHOP, strict=True)
    )
    if min(sizes) < 1 or min(seed, visitors_seed) < 0:
        raise ConfigError("--users, --items and --interactions are above 0, seeds are not below")
    if loop:
        if output is None or dataset or train_data or items_data or users_data:
            raise ConfigError("--loop goes round in the demo shop", hint="with --output, and without data of your own")
        _go_round(_loop_settings(rounds, sizes, exploration, seed), output)
        return
    if dataset or train_data or items_data or users_data:
        files = DataFiles(train=train_data, items=items_data, users=users_data)
        source = load_source(dataset, data_dir, files, ModelConfig(), offline=offline)
        name, simulation = source.name, world_like(source.dataset, seed)
    else:
        name, simulation = "demo shop", demo_world(seed, *sizes)
    if output is not None:
        _write(simulation, output, name, policy, seed)
    if against is not None:
        _visit(simulation, against, _visitors(rate, duration, exponent, connections, k, visitors_seed))


def _loop_settings(rounds: int, sizes: tuple[int, ...], exploration: float, seed: int) -> "LoopSettings":
    from rec_engine.pipeline.closed_loop import LoopSettings

    if not 1 <= rounds <= MAX_ROUNDS or not 0 <= exploration <= MAX_EXPLORATION:
        raise ConfigError(
            f"--rounds {rounds} --exploration {exploration:g}: 1 to {MAX_ROUNDS}, and 0 to {MAX_EXPLORATION}"
        )
    users, items, interactions = sizes
    return LoopSettings(
        n_rounds=rounds,
        n_users=users,
        n_items=items,
        n_interactions=interactions,
        exploration=exploration,
        seed=seed,
    )


def _go_round(settings: "LoopSettings", directory: Path) -> None:
    from rec_engine.pipeline.loop_report import compare_loops, table, write_loop

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {directory}: {error}", hint="give a folder that can be written to") from None
    report = compare_loops(settings)
    for line in table(report):
        say(line)
    files = write_loop(report, directory)
    say(f"{', '.join(str(file) for file in files)}: all figures, {report.seconds:,.0f} s")


def _write(simulation: "Simulation", directory: Path, name: str, policy: "PolicyName", seed: int) -> None:
    from rec_engine.pipeline.simulate import write_simulation

    past = simulation.past(policy, seed=seed)
    files = write_simulation(past, directory)
    rate = past.interactions.filter(event="click").height / max(past.impressions.height, 1)
    say(
        f"{directory}: {past.interactions.height:,} interactions and {past.impressions.height:,} impressions "
        f"({rate:.1%} of them clicked) of {past.users.height:,} users with {past.items.height:,} items, "
        f"in {', '.join(file.name for file in files)}"
    )
    match = simulation.match(past)
    if match is not None:
        _report(match, name, directory)
    say(
        f"Next: rec-engine train --train-data {directory / 'interactions.parquet'} "
        f"--items-data {directory / 'items.parquet'} --users-data {directory / 'users.parquet'}"
    )


def _report(match: "Match", name: str, directory: Path) -> None:
    for likeness in match.likenesses:
        say(f"{likeness.name}: distance {likeness.distance:.3f} (Kolmogorov-Smirnov)")
    say(f"rank correlation of the items' popularity: {match.popularity_correlation:.3f}")
    if importlib.util.find_spec("matplotlib") is None:
        say("no fit.html: plots need pip install 'rec-engine[train]'")
        return
    from rec_engine.pipeline.fit_report import write_fit_report

    write_fit_report(match, name, directory / "fit.html")
    say(f"{directory / 'fit.html'} shows both worlds")


def _visitors(rate: float, duration: float, exponent: float, connections: int, k: int, seed: int) -> "Visitors":
    from rec_engine.pipeline.replay import Visitors

    if not 0 < rate <= MAX_RATE or not 0 < duration <= MAX_SECONDS:
        raise ConfigError(
            f"--rate {rate:g} --duration {duration:g}: above 0, up to {MAX_RATE:,} a second and {MAX_SECONDS:,} seconds"
        )
    if not 0 <= exponent <= MAX_EXPONENT or not 1 <= connections <= MAX_CONNECTIONS or not 1 <= k <= MAX_ITEMS:
        raise ConfigError(
            f"--exponent {exponent:g} --connections {connections} --k {k}: 0 to {MAX_EXPONENT}, 1 to "
            f"{MAX_CONNECTIONS:,} and 1 to {MAX_ITEMS}"
        )
    return Visitors(rate, duration, exponent, connections, k, seed)


def _visit(simulation: "Simulation", url: str, visitors: "Visitors") -> None:
    """Send the visitors, say what came of it, and exit with 1 if anything went wrong."""
    from rec_engine.pipeline.replay import KEY_VARIABLE, replay

    simulation.remember()
    account = replay(simulation.simulator, url, visitors, os.environ.get(KEY_VARIABLE) or None)
    events = ", ".join(f"{n:,} {action}" for action, n in sorted(account.events.items())) or "nothing"
    say(
        f"{url}: {account.n_answers:,} of {account.n_visitors:,} visitors answered in {account.seconds:,.1f} s; "
        f"they were shown {account.n_shown:,} items and gave feedback: {events}"
    )
    if account.n_unknown:
        say(f"{account.n_unknown:,} of the items are not in the simulated world: was the service trained on it?")
    say(
        f"By the truth an answer is worth {account.expected_clicks:.3f} clicks, the best page there was "
        f"{account.best_clicks:.3f}"
    )
    for route, latencies in account.latencies_ms.items():
        if len(latencies):
            middle, late, last = np.quantile(latencies, [0.5, 0.99, 1.0])
            say(f"{route}: {len(latencies):,} answers, p50 {middle:.1f} ms, p99 {late:.1f} ms, longest {last:.1f} ms")
    for error, n in sorted(account.errors.items()):
        say(f"{error}: {n:,} times")
    if account.errors:
        sys.exit(1)

"""The command line: flags in, one clear sentence and an exit code for whatever the user can mend."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from rec_engine.cli_capacity import capacity
from rec_engine.cli_doctor import doctor
from rec_engine.cli_experiments import experiments_app, show_demo
from rec_engine.cli_ingest import ingest
from rec_engine.cli_keys import keys_app
from rec_engine.cli_models import models_app
from rec_engine.cli_output import AsJson, told
from rec_engine.cli_simulate import simulate
from rec_engine.cli_store import store_app
from rec_engine.errors import ConfigError, DataError, RecEngineError
from rec_engine.utils.config import ModelConfig, ServingConfig, load_config
from rec_engine.utils.console import say, show
from rec_engine.utils.logger import configure_logging

if TYPE_CHECKING:
    from rec_engine.evaluation.evaluator import Evaluation

MAX_TRIALS = 1_000
DEFAULT_WORKERS = 2
Engine = Literal["local", "ray"]
TABLE_METRICS = ("ndcg", "hit_rate", "recall", "coverage")
USAGE, DATA, INTERRUPTED = 2, 3, 130
EPILOGUE = """Try first:

  rec-engine demo                                  train, compare, serve a demo

  rec-engine train --train-data interactions.csv   a model of your own data

  rec-engine serve                                 the model over HTTP

Exit codes: 0 done, 1 a check says no, 2 wrong flags, 3 settings, data or a file have to be mended, 130 interrupted."""

BEGIN = Group("Begin", sort_key=1)
LEARN = Group("Train and judge", sort_key=2)
SERVE = Group("Serve", sort_key=3)
OPERATE = Group("Operate", sort_key=4)

app = App(
    name="rec-engine",
    help="A recommendation engine: train, evaluate, serve.",
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    group_commands=Group("This program", sort_key=5),
    version_flags=["--version"],
)
app.register_install_completion_command(help="Install completion for this shell.")
for sub_commands in (models_app, keys_app, experiments_app, store_app):
    sub_commands.group = OPERATE
    app.command(sub_commands)
app.command(ingest, group=OPERATE)
app.command(capacity, group=OPERATE)
app.command(doctor, group=OPERATE)
app.command(simulate, group=BEGIN)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0 when all went well, 1 when a check says no, 2 for wrong flags, 3 when settings, data or a file have to be mended,
    130 when interrupted.
    """
    configure_logging()
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(str(error), "rec-engine --help lists commands and flags", USAGE)
    except RecEngineError as error:
        _fail(str(error), error.hint, error.exit_code)
    except OSError as error:
        _fail(*told(error), DATA)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@app.command(group=BEGIN)
def demo(
    *, data_dir: Path = Path("data"), model_dir: Path = Path("models"), port: int = 8000, serve: bool = True
) -> None:
    """Train on MovieLens 100K (or, where it cannot be had, on simulated data), evaluate, and serve.

    Args:
        data_dir: where MovieLens 100K lies or is downloaded to.
        model_dir: where the model goes.
        port: to serve on, on this machine only.
        serve: serve at the end; --no-serve stops after the table.
    """
    from rec_engine.pipeline.demo import run_demo

    run_demo(data_dir, model_dir, port, serve=serve)


@app.command(group=LEARN)
def train(  # noqa: PLR0913 - the brief's flags
    *,
    config: Path | None = None,
    dataset: str | None = None,
    train_data: Path | None = None,
    events: str | None = None,
    val_data: Path | None = None,
    items_data: Path | None = None,
    users_data: Path | None = None,
    data_dir: Path = Path("data"),
    model_dir: Path = Path("models"),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    split: Literal["leave_one_out", "temporal", "random"] | None = None,
    seed: int | None = None,
    timestamp_format: str | None = None,
    rejects: Path | None = None,
    offline: bool = False,
    resume: bool = False,
    tune: int = 0,
    engine: Engine = "local",
    workers: int | None = None,
) -> None:
    """Train a model, measure it on held-out data and make it the current version.

    Args:
        config: settings, such as configs/model_config.yaml.
        dataset: demo, movielens-100k, -latest-small, -1m, -10m, -20m, -25m, -32m, or custom; without it custom where
            there are data of your own, else demo.
        train_data: interactions: CSV, Parquet or JSON Lines; a folder of Parquet files may be larger than memory.
        events: event store of a service, such as sqlite:///state/events.db; what it holds comes on top of the files.
        val_data: later interactions to stop training on, instead of a split.
        items_data: items of a custom dataset.
        users_data: users of a custom dataset.
        data_dir: where MovieLens lies or is downloaded to.
        model_dir: the registry of versions.
        epochs: training.num_epochs.
        batch_size: training.batch_size.
        learning_rate: training.learning_rate.
        device: training.device.
        split: evaluation.split.
        seed: training.seed.
        timestamp_format: data.timestamp_format.
        rejects: where rows that cannot be used are listed.
        offline: do not use the network.
        resume: go on from the checkpoint of an interrupted run.
        tune: settings to try before; the best are trained with and written to tuned.yaml in the registry. The same
            command goes on where an interrupted search stopped.
        engine: where the towers are trained: in this process (and those that torchrun starts with it), or by Ray.
        workers: processes of --engine ray, 2 by default.
    """
    from rec_engine.models.processes import is_follower
    from rec_engine.pipeline.sources import DataFiles, load_source
    from rec_engine.pipeline.towers import Launch
    from rec_engine.pipeline.train import help_to_train, make_split
    from rec_engine.pipeline.train import train as train_model

    flags = {
        "training.num_epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "training.device": device,
        "training.seed": seed,
        "evaluation.split": split,
        "data.timestamp_format": timestamp_format,
    }
    settings = load_config(ModelConfig, config, flags=flags)
    launch = Launch(resume, _ray_workers(engine, workers))
    if is_follower():
        _follow(tune)
    files = DataFiles(train_data, val_data, items_data, users_data, rejects, events, scratch=model_dir)
    source = load_source(dataset, data_dir, files, settings, offline=offline)
    if not 0 <= tune <= MAX_TRIALS:
        raise DataError(f"--tune {tune}: lies between 0 and {MAX_TRIALS:,}")
    if tune:
        from rec_engine.pipeline.tune import tune as search

        split_to_tune = source.split or make_split(source.dataset, settings)
        settings, best = search(source.dataset, settings, split_to_tune, tune, model_dir)
        say(f"{best} holds the best settings: rec-engine train --config {best} uses them again")
    if is_follower():
        help_to_train(source.dataset, settings, model_dir, source.split, launch)
        return
    report = train_model(
        source.dataset,
        settings,
        model_dir,
        name=source.name,
        split=source.split,
        log_url=source.log_url,
        launch=launch,
    )
    for evaluation in report.evaluations:
        found = evaluation.estimate("ndcg@10")
        if not len(evaluation.user_codes):
            say(f"{evaluation.name}: not measured, no user has enough interactions to hold one out")
            continue
        say(f"{evaluation.name}: NDCG@10 {found.mean:.4f} [{found.low:.4f}, {found.high:.4f}] ({report.measured_on})")
    say(report.verdict)
    say(report.gate)
    if not report.is_current:
        say(
            f"{report.directory} is published, and the current model stays. Next: rec-engine models promote "
            f"{report.version} --force --model-dir {model_dir} makes it current all the same."
        )
        return
    say(
        f"{report.directory} is the current model. Next: open {report.directory / 'report.html'} to see how good it is "
        f"and for whom; rec-engine serve --model-dir {model_dir} serves it."
    )


@app.command(group=LEARN)
def evaluate(  # noqa: PLR0913 - the brief's flags
    *,
    model_dir: Path = Path("models"),
    test_data: Path | None = None,
    k_values: Annotated[list[int], Parameter(consume_multiple=True)] = [5, 10, 20],  # noqa: B006 - read only
    compare: Annotated[list[str], Parameter(consume_multiple=True)] = [],  # noqa: B006 - read only
    output_file: Path | None = None,
    as_json: AsJson = False,
    off_policy: bool = False,
    events: str | None = None,
    exploration: float = 0.5,
    positions: int = 1,
    run_ab_test_demo: bool = False,
    seed: int = 42,
    users: int = 120_000,
) -> None:
    """Rank the full catalogue for every held-out user and print the model beside tuned baselines.

    With --off-policy print instead what each version would have earned on the answers that a service has logged.

    Args:
        model_dir: a registry of versions (its current one is taken) or one version.
        test_data: later interactions of the same users; without it the test part kept from training.
        k_values: list lengths.
        compare: NAME:DIRECTORY of several models, measured on what the first one holds out and none has learned from.
        output_file: JSON with every metric and interval.
        as_json: print that JSON instead of the table.
        off_policy: judge by the log.
        events: of --off-policy: URL of the event store, such as sqlite:///state/events.db.
        exploration: of --off-policy: recommendations.exploration with which the versions would serve.
        positions: of --off-policy: how many positions from the top are judged.
        run_ab_test_demo: instead, simulate five A/B tests whose truth is known, and print what is found; no model is
            needed.
        seed: of that simulation.
        users: of each of its experiments.
    """
    if run_ab_test_demo:
        show_demo(seed, users, output_file, quietly=as_json)
        return
    from rec_engine.cli_off_policy import evaluate_from_log
    from rec_engine.evaluation.evaluator import as_json as plain
    from rec_engine.pipeline.compare import report_on

    if not k_values or min(k_values) < 1 or max(k_values) > 1_000:
        raise DataError(f"--k-values {k_values}: each lies between 1 and 1,000")
    models = [_named_model(pair) for pair in compare] or [("", model_dir)]
    if off_policy:
        told = evaluate_from_log(models, events, exploration=exploration, positions=positions, quietly=as_json)
    else:
        evaluations, title = report_on(models, test_data, sorted(set(k_values)))
        told = json.dumps(plain(evaluations), indent=2, allow_nan=False)
        if not as_json:
            _show(evaluations, title, sorted(set(k_values)))
    if as_json:
        sys.stdout.write(told + "\n")
    if output_file:
        _write(output_file, told)
        if not as_json:
            say(f"{output_file} holds every figure")


@app.command(group=SERVE)
def recommend(
    *,
    model_dir: Path = Path("models"),
    users: str = "all",
    k: int = 10,
    output: Path = Path("recommendations.parquet"),
    config: Path | None = None,
    engine: Engine = "local",
    workers: int | None = None,
) -> None:
    """Write recommendations for all users, or for those of a file: user_id, item_id, rank, score.

    Args:
        model_dir: a registry of versions (its current one is taken) or one version.
        users: "all", or a CSV, Parquet or JSON Lines file with a column user_id.
        k: items a user.
        output: a .parquet, .csv or .jsonl file.
        config: settings, such as configs/serving_config.yaml.
        engine: in this process, or by Ray.
        workers: processes of --engine ray, 2 by default.
    """
    from rec_engine.bundle import find_bundle, open_bundle
    from rec_engine.pipeline.batch import recommend_to_file

    if not 1 <= k <= 1_000:
        raise DataError(f"-k {k}: lies between 1 and 1,000")
    settings = load_config(ServingConfig, config).recommendations
    # One version for all workers, whatever is promoted meanwhile.
    directory, elsewhere = find_bundle(model_dir), None
    if n_workers := _ray_workers(engine, workers):
        from rec_engine.pipeline.on_ray import recommend_on_ray

        elsewhere = partial(recommend_on_ray, directory, settings=settings, n_workers=n_workers)
    table = recommend_to_file(open_bundle(directory), users, k, output, settings, elsewhere=elsewhere)
    say(f"{output}: {table.height:,} recommendations for {table['user_id'].n_unique():,} users")


@app.command(group=SERVE)
def serve(
    *,
    config: Path | None = None,
    model_dir: Path = Path("models"),
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> None:
    """Serve a trained model over HTTP; the routes are at /docs.

    Args:
        config: settings, such as configs/serving_config.yaml.
        model_dir: a registry of versions (its current one is taken) or one version.
        host: api.host.
        port: api.port.
        workers: api.workers.
    """
    from rec_engine.serving.server import run_server

    flags = {"api.host": host, "api.port": port, "api.workers": workers}
    run_server(model_dir, load_config(ServingConfig, config, flags=flags))


def _follow(tune: int) -> None:
    """Be silent beside the process that says it all, and refuse what is not done together."""
    configure_logging("WARNING")
    if tune:
        raise ConfigError("--tune searches in one process", hint="search first, then train by the tuned.yaml it writes")


def _ray_workers(engine: Engine, workers: int | None) -> int:
    """Return how many workers Ray is to have, 0 where it is not wanted."""
    if engine == "local" and workers is not None:
        raise ConfigError(
            f"--workers {workers} belongs to --engine ray",
            hint="without Ray, torchrun --nproc-per-node N -m rec_engine train ... trains on N processes",
        )
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    return (workers or DEFAULT_WORKERS) if engine == "ray" else 0


def _show(evaluations: "list[Evaluation]", title: str, k_values: list[int]) -> None:
    from rec_engine.evaluation.evaluator import comparison_table

    middle = k_values[len(k_values) // 2]
    metrics = [f"{metric}@{middle}" for metric in TABLE_METRICS]
    show(comparison_table(evaluations, metrics, title))
    judged = evaluations[-1]
    say(
        f"Left out: {judged.n_unreachable_targets:,} targets that their users had already met, "
        f"{judged.n_cold_users:,} users without a history."
    )


def _named_model(pair: str) -> tuple[str, Path]:
    name, separator, directory = pair.partition(":")
    if not separator or not name or not directory:
        raise DataError(
            f"--compare {pair}: wanted NAME:DIRECTORY", hint="--compare baseline:models/a improved:models/b"
        )
    return name, Path(directory)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _fail(message: str, hint: str, exit_code: int) -> None:
    say(f"Error: {message}", to_stderr=True)
    if hint:
        say(f"Hint: {hint}", to_stderr=True)
    sys.exit(exit_code)

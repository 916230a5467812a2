"""RecTools' sequential models for `benchmarks/quality.py`, in an environment of their own.

    python rectools_models.py TRAIN.csv HISTORY.csv FOUND.csv --model sasrec --minutes 20 --k 20 --seed 0

TRAIN and HISTORY have user, item and time (Unix seconds): what the model learns from, and what the users have met when
they ask. HISTORY's column `asked` is the time of the request. FOUND gets user, item and rank. The settings are those of
RecTools' own tutorials on MovieLens 1M; training stops when the minutes are over.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

NETWORK = {
    "n_blocks": 2,
    "n_heads": 1,
    "n_factors": 64,
    "dropout_rate": 0.2,
    "lr": 1e-3,
    "batch_size": 128,
    "deterministic": True,
}


def main() -> None:
    """Train, recommend, write."""
    arguments = _arguments()
    seed_everything(arguments.seed)
    train, history = _table(pd.read_csv(arguments.train)), pd.read_csv(arguments.history)

    def trainer() -> Trainer:
        budget = {"minutes": int(arguments.minutes), "seconds": int(arguments.minutes * 60 % 60)}
        return Trainer(max_epochs=1_000, max_time=budget, logger=False, enable_checkpointing=False, accelerator="cpu")

    network = NETWORK | {"session_max_len": arguments.max_len}
    model = {
        "sasrec": lambda: SASRecModel(**network, loss="softmax", get_trainer_func=trainer),
        "esasrec": lambda: SASRecModel(
            **network,
            loss="sampled_softmax",
            n_negatives=256,
            transformer_layers_type=LiGRLayers,
            get_trainer_func=trainer,
        ),
        "hstu": lambda: HSTUModel(**network, loss="softmax", get_trainer_func=trainer),
    }[arguments.model]()
    model.fit(Dataset.construct(train))
    context = None
    if model.require_recommend_context:
        asked = history.groupby("user", as_index=False)["asked"].first()
        times = pd.to_datetime(asked["asked"], unit="s")
        context = pd.DataFrame({Columns.User: asked["user"], Columns.Datetime: times, Columns.Weight: 1.0})
    past = _table(history)
    # A user without an item that the model knows has no list.
    known = past[past[Columns.Item].isin(train[Columns.Item])]
    users = known[Columns.User].unique()
    lists = model.recommend(
        users=users, dataset=Dataset.construct(past), k=arguments.k, filter_viewed=True, context=context
    )
    columns = {Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"}
    lists.rename(columns=columns)[list(columns.values())].to_csv(arguments.found, index=False)
    print(f"{model.fit_trainer.current_epoch} epochs in {arguments.minutes:g} minutes", flush=True)


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return RecTools' columns; equal times are pulled apart by nanoseconds, so that the order of the rows holds."""
    times = pd.to_datetime(rows["time"], unit="s") + pd.to_timedelta(np.arange(len(rows)), unit="ns")
    columns = {Columns.User: rows["user"], Columns.Item: rows["item"], Columns.Weight: 1.0, Columns.Datetime: times}
    return pd.DataFrame(columns)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "history", "found"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--model", choices=("sasrec", "esasrec", "hstu"), required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--max-len", type=int, default=200)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""RecTools' SASRec for `retrieval_quality.py`, in an environment of its own.

    python rectools_sasrec.py KNOWN.csv FOUND.csv --minutes 20 --k 20

KNOWN has user, item and place (order in the user's history). The last item of each history is not trained on (it is
the validation item of the other models) but is part of the history that recommendations start from. The settings are
the usual ones on MovieLens 1M (width 64, 2 blocks, 1 head, 200 items, full softmax), and training stops when the
minutes are over.
"""

import argparse
from pathlib import Path

import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

DAY_ZERO = pd.Timestamp("2000-01-01")


def main() -> None:
    """Train, recommend, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("known", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--k", type=int, default=20)
    arguments = parser.parse_args()
    seed_everything(0)
    known = pd.read_csv(arguments.known)
    table = pd.DataFrame(
        {
            Columns.User: known["user"],
            Columns.Item: known["item"],
            Columns.Weight: 1.0,
            Columns.Datetime: DAY_ZERO + pd.to_timedelta(known["place"], unit="s"),
        }
    )
    is_last = known["place"] == known.groupby("user")["place"].transform("max")

    def trainer() -> Trainer:
        budget = {"minutes": int(arguments.minutes), "seconds": int(arguments.minutes * 60 % 60)}
        return Trainer(max_epochs=1_000, max_time=budget, logger=False, enable_checkpointing=False, accelerator="cpu")

    model = SASRecModel(
        n_blocks=2,
        n_heads=1,
        n_factors=64,
        session_max_len=200,
        dropout_rate=0.2,
        loss="softmax",
        lr=1e-3,
        batch_size=128,
        deterministic=True,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(table[~is_last]))
    print(f"RecTools SASRec: {model.fit_trainer.current_epoch} epochs in {arguments.minutes:g} minutes", flush=True)
    lists = model.recommend(
        users=table[Columns.User].unique(), dataset=Dataset.construct(table), k=arguments.k, filter_viewed=True
    )
    columns = {Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"}
    lists.rename(columns=columns)[list(columns.values())].to_csv(arguments.found, index=False)


if __name__ == "__main__":
    main()

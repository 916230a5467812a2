"""Every notebook runs from top to bottom, holds what it printed, and nothing of the machine that it ran on."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookClient]:
    """One kernel for all of them, for libraries take longer to load than notebooks to run."""
    folder = tmp_path_factory.mktemp("notebooks")
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=240, startup_timeout=240)
    client.create_kernel_manager()
    assert client.km is not None
    client.km.transport = "ipc"  # TCP would let other users of the machine listen
    client.km.ip = str(folder / "kernel")
    with client.setup_kernel(cwd=str(folder)):
        yield client


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, client: NotebookClient) -> None:
    client.nb = nbformat.read(path, as_version=4)
    client.execute_cell(nbformat.v4.new_code_cell("%reset -f"), 0)
    for place, cell in enumerate(client.nb.cells):
        client.execute_cell(cell, place)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_kept_as_it_ran(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    text = path.read_text(encoding="utf-8")
    assert not [part for part in ("/home/", "/root/", "/tmp/", "/work/") if part in text]  # noqa: S108 - looked for
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert any(cell.outputs for cell in code)


def test_the_first_notebook_is_the_one_that_is_promised() -> None:
    assert [path.name for path in NOTEBOOKS][0] == "01_quick_demo.ipynb"
    assert len(NOTEBOOKS) == 5

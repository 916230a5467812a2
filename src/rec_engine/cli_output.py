"""What commands print for programs: `--json`."""

import sys
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic_core import to_json

AsJson = Annotated[bool, Parameter(name="--json", negative="")]


def print_json(found: Any) -> None:  # noqa: ANN401 - whatever JSON can hold of dataclasses, models and numbers
    """Write one JSON document to the standard output; a number that there is not is null."""
    sys.stdout.write(to_json(found, indent=2, inf_nan_mode="null").decode() + "\n")

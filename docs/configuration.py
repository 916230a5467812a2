"""Writes docs/configuration.md from the settings' own docstrings: `python docs/configuration.py`."""

from pathlib import Path

from rec_engine.utils.config import ENVIRONMENT_PREFIX, ModelConfig, ServingConfig
from rec_engine.utils.service_settings import REDIS_PASSWORD_VARIABLE
from rec_engine.utils.settings import Settings

PAGE = Path(__file__).with_name("configuration.md")
INTRODUCTION = f"""# Settings

Made by `python docs/configuration.py` from the code. A flag beats the environment, the environment a file, a file the
default. In the environment, `training.batch_size` is `{ENVIRONMENT_PREFIX}TRAINING__BATCH_SIZE`. An unknown key or a
wrong value stops the program with a sentence that names file, key and the nearest valid one.

`USE_MEMORY_CACHE=true` keeps the cache of answers in the process; no Redis is needed then.
`{REDIS_PASSWORD_VARIABLE}` is the password of Redis, `MILVUS_TOKEN` the token of Milvus; no file may hold them.
"""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for file, kind in (("model_config.yaml", ModelConfig), ("serving_config.yaml", ServingConfig)):
        parts.append(f"## {file}\n")
        parts += _sections(kind(), "")
    return "\n".join(parts)


def _sections(settings: Settings, prefix: str) -> list[str]:
    parts: list[str] = []
    rows: list[str] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            parts += [f"### `{prefix}{name}`\n", f"{field.description}\n", *_sections(value, f"{prefix}{name}.")]
        else:
            shown = list(value) if isinstance(value, tuple) else value
            rows.append(f"| `{prefix}{name}` | `{shown}` | {' '.join(str(field.description).split())} |")
    table = ["| key | default | what it does |\n|---|---|---|\n" + "\n".join(rows) + "\n"] if rows else []
    return table + parts


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

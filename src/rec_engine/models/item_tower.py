"""The item tower at request time: an item that training never saw becomes a vector, without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import BundleError
from rec_engine.models.attributes import AttributeEncoder
from rec_engine.models.content import Whitening, item_texts
from rec_engine.models.text_encoder import TextEncoder
from rec_engine.models.user_tower import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # noqa: TID251 - the type only, open_session is the door

ATTRIBUTES, WHITENING, NETWORK, TEXT_ENCODER = "attributes.json", "whitening.npz", "item_tower.onnx", "text_encoder"


@dataclass(frozen=True, slots=True)
class ItemTower:
    """Turns items without an id embedding into what the towers make of their attributes and texts.

    Attributes:
        attributes: the table's columns to features.
        whitening: text embeddings to what the tower reads of them.
        session: the exported tower.
        text_encoder: texts to embeddings; None where the tower reads no text.
    """

    attributes: AttributeEncoder
    whitening: Whitening
    session: "InferenceSession"
    text_encoder: TextEncoder | None

    @classmethod
    def load(cls, directory: Path) -> "ItemTower":
        """Return the tower that training wrote into a directory.

        Raises:
            BundleError: if a file is missing or not readable.
        """
        path, texts = directory / ATTRIBUTES, directory / TEXT_ENCODER
        try:
            attributes = AttributeEncoder.from_json(path.read_bytes())
        except OSError as error:
            raise BundleError(f"{path}: not readable ({error})", hint="train again") from None
        return cls(
            attributes=attributes,
            whitening=Whitening.load(directory / WHITENING),
            session=open_session(directory / NETWORK),
            text_encoder=TextEncoder.load(texts) if texts.is_dir() else None,
        )

    def encode(self, items: pl.DataFrame) -> tuple[FloatArray, FloatArray]:
        """Return what the history encoder reads of each item, (n, embedding_dim), and the vectors that are searched.

        The vectors are (n, dim) and L2-normalised; both are float32.

        Args:
            items: `title`, `description`, `categories` and any attributes, one row an item.
        """
        feed = {"item_features": self.attributes.matrix(items), "text": self._text(items)}
        inputs, vectors = self.session.run(["item_input", "item_vector"], feed)
        return inputs, vectors

    def _text(self, items: pl.DataFrame) -> FloatArray:
        if self.text_encoder is None:
            return np.zeros((items.height, self.whitening.dim), dtype=np.float32)
        return self.whitening.apply(self.text_encoder.embed(item_texts(items)))

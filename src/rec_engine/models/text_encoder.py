"""The text encoder at request time: ONNX Runtime and a tokenizer, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import BundleError
from rec_engine.models.user_tower import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # noqa: TID251 - the type only, open_session is the door

NETWORK, TOKENIZER = "model.onnx", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Turns texts into the vectors that training had of them, but for what 8-bit weights lose.

    Attributes:
        session: the exported encoder.
        tokenizer: that which belongs to it; it cuts texts where the encoder did in training.
    """

    session: "InferenceSession"
    tokenizer: Tokenizer

    @classmethod
    def load(cls, directory: Path) -> "TextEncoder":
        """Return the encoder that `export_text_encoder` wrote.

        Raises:
            BundleError: if a file is missing or not readable.
        """
        path = directory / TOKENIZER
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the tokenizers' errors are plain Exceptions
            raise BundleError(f"{path}: not a readable tokenizer ({error})", hint="train again") from None
        return cls(open_session(directory / NETWORK), tokenizer)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, dim) float32, each of length 1; the zero vector for an empty text."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for place, text in enumerate(texts):
            if text:
                vectors[place] = self._vector(text)
        return vectors

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.session.get_outputs()[0].shape[-1])

    def _vector(self, text: str) -> FloatArray:
        # One text a call: activations are scaled to 8 bits over the whole call, so that beside others a text would get
        # another vector, and the padding of a batch costs more than calls do.
        tokens = self.tokenizer.encode(text)
        feed = {"input_ids": np.array([tokens.ids]), "attention_mask": np.array([tokens.attention_mask])}
        vector: FloatArray = self.session.run(None, feed)[0][0]
        return vector

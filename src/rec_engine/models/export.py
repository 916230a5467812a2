"""Networks out of torch: ONNX graphs of users, items and texts, plain arrays of the items in training."""

import copy
import logging
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic  # noqa: TID251 - nothing is served
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import TrainingError
from rec_engine.models.embeddings import ContentEmbedder
from rec_engine.models.text_encoder import NETWORK, TOKENIZER, TextEncoder
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.logger import get_logger

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OPSET = 20
MIN_COSINE = 0.98
"""Mean cosine with the encoder's own vectors below which an exported encoder is another one."""
PROBES = (
    "Alien",
    "Set of 6 Herb Tins, Sketchbook",
    "Wireless headphones. Over-ear, 40 hours of battery, noise cancelling. Categories: Audio, Travel",
    "A retired detective returns to the town he left thirty years ago and finds that nobody remembers the murder.",
    "Le petit chat noir dort sur le toit de la maison.",
    "HDMI 2.1 cable, 3 m, 8K@60Hz / 4K@120Hz, nylon braid (black)",
)

logger = get_logger(__name__)


class _LastState(nn.Module):
    """The part of the model that runs at request time: history to user vector."""

    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, sequence: Tensor, times: Tensor, query_times: Tensor, last: Tensor, user_features: Tensor
    ) -> Tensor:
        states = self.model.last_states(sequence, times, query_times, last)  # (batch, embedding_dim)
        return self.model.user_vectors(states, user_features)


class _ColdItem(nn.Module):
    """The part of the model that makes an item of what is said about it: no id embedding, and the gate is open."""

    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, item_features: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.model.from_item_features(item_features) + self.model.from_text(text)
        return inputs, self.model.item_vectors(inputs)


class _TextVector(nn.Module):
    """A sentence transformer from tokens to vectors of length 1."""

    def __init__(self, model: "SentenceTransformer") -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
        return functional.normalize(found["sentence_embedding"], dim=-1)


def export_user_tower(model: TwoTowerModel, path: Path) -> None:
    """Write the user tower as ONNX.

    Inputs: `sequence` (batch, len, embedding_dim), `times` and `query_times` (batch, len) int64, `last` (batch,) int64,
    `user_features` (batch, n_features); those that the model does not read are left out.
    """
    model = model.to("cpu").eval()
    dim, n_features = model.item_embedding.embedding_dim, model.user_features.shape[1]
    clock = torch.arange(6).reshape(2, 3)
    example = (torch.randn(2, 3, dim), clock, clock + 1, torch.tensor([2, 1]), torch.randn(2, n_features))
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1, max=model.max_history_len)
    steps = {0: batch, 1: length}
    shapes = {"sequence": steps, "times": steps, "query_times": steps, "last": {0: batch}, "user_features": {0: batch}}
    _export(_LastState(model), example, shapes, ["user_vector"], path)


def export_item_tower(model: TwoTowerModel, path: Path) -> None:
    """Write the item tower as ONNX, for items without an id embedding.

    Inputs: `item_features` (batch, n_features) and `text` (batch, text_dim), either of which may have no columns.
    Outputs: `item_input` (batch, embedding_dim) and `item_vector` (batch, dim), as `item_arrays` has them.
    """
    model = model.to("cpu").eval()
    example = torch.randn(2, model.item_features.shape[1]), torch.randn(2, model.text_embeddings.shape[1])
    batch = {0: torch.export.Dim("batch", min=1)}
    _export(_ColdItem(model), example, {"item_features": batch, "text": batch}, ["item_input", "item_vector"], path)


def export_text_encoder(embedder: ContentEmbedder, directory: Path) -> None:
    """Write the embedder's encoder into a new directory, as `TextEncoder` reads it.

    Its weights are 8-bit integers, a quarter of the bytes, unless its vectors suffer from that. The export takes some
    ten seconds, once a machine and encoder: it is kept beside the embeddings.

    Raises:
        TrainingError: if the encoder is not a transformer whose tokens and vectors can be had without its library.
    """
    kept = embedder.cache_dir / f"{embedder.cache_key}-int8"
    if not (kept / NETWORK).exists():
        kept.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=embedder.cache_dir) as work:
            _write_text_encoder(embedder, Path(work))
            for name in (TOKENIZER, NETWORK):  # the network comes last: where it lies, all lies
                (Path(work) / name).replace(kept / name)
    shutil.copytree(kept, directory)


@torch.no_grad()
def item_arrays(model: TwoTowerModel, items_a_batch: int = 8192) -> tuple[FloatArray, FloatArray]:
    """Return what the history encoder reads of each item, (n_items, embedding_dim), and the vectors that are searched.

    The vectors are (n_items, dim) and L2-normalised; both are float32.
    """
    model = model.to("cpu").eval()
    inputs, vectors = [], []
    for first in range(0, model.num_items, items_a_batch):
        codes = torch.arange(first, min(first + items_a_batch, model.num_items))
        inputs.append(model.item_inputs(codes))
        vectors.append(model.item_vectors(inputs[-1]))
    return torch.cat(inputs).numpy().astype(np.float32), torch.cat(vectors).numpy().astype(np.float32)


def _write_text_encoder(embedder: ContentEmbedder, directory: Path) -> None:
    name = embedder.settings.encoder
    logger.info("exporting the text encoder %s for serving, once on this machine", name)
    _write_tokenizer(embedder, directory / TOKENIZER)
    network, whole, prepared = directory / NETWORK, directory / "float32.onnx", directory / "prepared.onnx"
    _export_text_vector(embedder, whole)
    quant_pre_process(whole, prepared, skip_symbolic_shape=True, skip_optimization=True)
    # One scale a matrix leaves the vectors a mean cosine of .95 with the encoder's own, one an output leaves .99. A bit
    # is free because processors without VNNI add two products in 16 bits.
    quantize_dynamic(prepared, network, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    cosine = _cosine(embedder, directory)
    if cosine < MIN_COSINE:
        logger.warning("%s does not bear 8 bits (cosine %.3f): it is served as float32", name, cosine)
        whole.replace(network)
        cosine = _cosine(embedder, directory)
    if cosine < MIN_COSINE:
        raise _unfit(embedder, f"its exported network makes other vectors (cosine {cosine:.3f})")


def _write_tokenizer(embedder: ContentEmbedder, path: Path) -> None:
    model = embedder.model
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if type(model[0]).__name__ != "Transformer" or backend is None:
        raise _unfit(embedder, f"it is a {type(model[0]).__name__} with a {type(model.tokenizer).__name__}")
    if prompt := model.prompts.get(model.default_prompt_name or ""):
        raise _unfit(embedder, f"it puts {prompt!r} before each text")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.enable_truncation(
        model.max_seq_length or embedder.settings.max_tokens, direction=model.tokenizer.truncation_side
    )
    tokenizer.no_padding()
    tokenizer.save(str(path))


def _export_text_vector(embedder: ContentEmbedder, path: Path) -> None:
    model = copy.deepcopy(embedder.model).to("cpu").eval()  # the embedder's own stays where it is
    example = torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long)
    batch = torch.export.Dim("batch", min=1)
    steps = {0: batch, 1: torch.export.Dim("length", min=1, max=model.max_seq_length)}
    shapes = {"input_ids": steps, "attention_mask": steps}
    try:
        _export(_TextVector(model), example, shapes, ["text_vector"], path)
    except torch.onnx.OnnxExporterError as error:
        raise _unfit(embedder, f"it is no ONNX graph ({error})") from error


def _cosine(embedder: ContentEmbedder, directory: Path) -> float:
    """Return the mean cosine of what is exported with what the library itself makes of some texts."""
    own = embedder.model.encode(list(PROBES), normalize_embeddings=True, show_progress_bar=False)
    exported = TextEncoder.load(directory).embed(PROBES)
    return float((exported * np.asarray(own)).sum(axis=1).mean())


def _unfit(embedder: ContentEmbedder, found: str) -> TrainingError:
    return TrainingError(
        f"text.encoder = {embedder.settings.encoder!r} cannot be served: {found}",
        hint="take a sentence transformer of the usual kind (transformer, pooling, normalisation), minilm, or none",
    )


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    shapes: Mapping[str, object],
    outputs: list[str],
    path: Path,
) -> None:
    """Write a module as ONNX; `shapes` names its inputs and says which of their dimensions vary."""
    # The exporter warns of torchvision, which is not needed, and of its own deprecations, which are not the user's.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            path,
            input_names=list(shapes),
            output_names=outputs,
            dynamic_shapes=dict(shapes),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )

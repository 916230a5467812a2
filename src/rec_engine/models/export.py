"""Towers out of torch: an ONNX graph for users, plain arrays for items."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rec_engine.data.dataset import FloatArray
from rec_engine.models.two_tower import TwoTowerModel

OPSET = 20


class _LastState(nn.Module):
    """The part of the model that runs at request time: history to user vector."""

    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, sequence: Tensor, times: Tensor, query_times: Tensor, last: Tensor, user_features: Tensor
    ) -> Tensor:
        states = self.model.user_states(sequence, times, query_times)  # (batch, len, embedding_dim)
        states = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        return self.model.user_vectors(states, user_features)


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
    # The exporter warns of torchvision, which is not needed, and of its own deprecations, which are not the user's.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LastState(model),
            example,
            path,
            input_names=list(shapes),
            output_names=["user_vector"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


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

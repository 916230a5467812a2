"""The two towers: one for the user, one for the item, meeting in a cosine."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rec_engine.models.encoders import history_encoder

MIN_STD = 0.02


class TwoTowerModel(nn.Module):
    """User and item vectors whose cosine, divided by the temperature, is the score.

        item input   = id embedding + W features + gate * W text          (dim: embedding_dim)
        item vector  = L2norm(tower(item input))                          (dim: tower_dims[-1])
        user state   = encoder(inputs of the user's history), or his id embedding;  + W features
        user vector  = L2norm(tower(user state))

    A tower is an MLP beside a straight linear path, so that it starts as a plain dot product of embeddings and the MLP
    adds to it what it can. An item that nobody met in training has no id embedding: its features and text stand alone
    and the gate is open. Training plays this through by dropping ids at random. With a history encoder a user needs no
    row of his own: whoever has a history has a vector.

    Args:
        num_users: users known in training; only the id embedding of `user_encoder="none"` needs them.
        num_items: items in the catalogue.
        embedding_dim: width of id embeddings and encoder.
        tower_dims: layers of each tower; the last is the width of the vectors.
        dropout: share of activations dropped in training.
        temperature: > 0; divides the cosine. 0.05 to 0.2 is usual.
        user_encoder: `hstu`, `sasrec`, `mean` or `none`.
        n_blocks: blocks of the hstu and sasrec encoders.
        n_heads: attention heads a block.
        max_history_len: latest items that the encoder reads.
        user_features: (num_users, n_features) float32.
        item_features: (num_items, n_features) float32.
        text_embeddings: (num_items, text_dim) float32.
        id_dropout: share of the items of a step whose id embedding is dropped, where they have features or text.

    Raises:
        ConfigError: if `user_encoder` is unknown or `n_heads` does not divide `embedding_dim`.
    """

    user_features: Tensor
    item_features: Tensor
    text_embeddings: Tensor
    known_items: Tensor

    def __init__(  # noqa: PLR0913 - the brief's signature
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 128,
        tower_dims: Sequence[int] = (256, 128, 64),
        dropout: float = 0.2,
        temperature: float = 0.07,
        *,
        user_encoder: str = "hstu",
        n_blocks: int = 2,
        n_heads: int = 1,
        max_history_len: int = 200,
        user_features: Tensor | None = None,
        item_features: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        id_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.id_dropout = id_dropout
        self.num_items, self.temperature = num_items, temperature
        self.user_encoder, self.max_history_len = user_encoder, max_history_len
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.user_embedding = nn.Embedding(num_users if user_encoder == "none" else 0, embedding_dim)
        self.register_buffer("user_features", _matrix(user_features, num_users), persistent=False)
        self.register_buffer("item_features", _matrix(item_features, num_items), persistent=False)
        self.register_buffer("text_embeddings", _matrix(text_embeddings, num_items), persistent=False)
        self.from_user_features = _projection(self.user_features.shape[1], embedding_dim)
        self.from_item_features = _projection(self.item_features.shape[1], embedding_dim)
        self.from_text = _projection(self.text_embeddings.shape[1], embedding_dim)
        self.text_gate = nn.Parameter(torch.zeros(embedding_dim))
        self.register_buffer("known_items", torch.ones(num_items, dtype=torch.bool))
        self.encoder = history_encoder(
            user_encoder, embedding_dim, n_blocks=n_blocks, n_heads=n_heads, max_len=max_history_len, dropout=dropout
        )
        self.user_tower = Tower(embedding_dim, tower_dims, dropout)
        self.item_tower = Tower(embedding_dim, tower_dims, dropout)
        for embedding in (self.item_embedding, self.user_embedding):
            nn.init.normal_(embedding.weight, std=MIN_STD)

    @property
    def is_sequential(self) -> bool:
        """Whether user vectors come from histories (rather than from user ids)."""
        return self.user_encoder != "none"

    @property
    def describes_items(self) -> bool:
        """Whether there is more to an item than its id."""
        return self.item_features.shape[1] + self.text_embeddings.shape[1] > 0

    def item_inputs(self, item_codes: Tensor) -> Tensor:
        """Return (n, embedding_dim): id embedding plus projected features and gated text of these items."""
        has_id = self.known_items[item_codes]
        if self.training and self.describes_items:
            has_id = has_id & (torch.rand(len(item_codes), device=has_id.device) >= self.id_dropout)
        has_id = has_id[:, None]
        features = self.from_item_features(self.item_features[item_codes])
        text = self.from_text(self.text_embeddings[item_codes])
        gate = torch.where(has_id, torch.sigmoid(self.text_gate), 1.0)
        inputs: Tensor = self.item_embedding(item_codes) * has_id + features + gate * text
        return inputs

    def item_vectors(self, item_inputs: Tensor) -> Tensor:
        """Return (n, tower_dims[-1]), L2-normalised."""
        return functional.normalize(self.item_tower(item_inputs), dim=-1)

    def user_states(self, sequence: Tensor, times: Tensor, query_times: Tensor) -> Tensor:
        """Return (batch, len, embedding_dim): the user as he was after each item of his history.

        Args:
            sequence: (batch, len, embedding_dim): inputs of the history's items, oldest first, padded at the end; for
                `user_encoder="none"`, the id embeddings.
            times: (batch, len) int64, Unix seconds of each item of the history.
            query_times: (batch, len) int64, when each position is asked for the next item: the time of that item, or of
                the request.
        """
        states: Tensor = self.encoder(sequence, times, query_times)
        return states

    def last_states(self, sequence: Tensor, times: Tensor, query_times: Tensor, last: Tensor) -> Tensor:
        """Return (batch, embedding_dim), what `user_states` has at the positions `last` (batch,), and nothing else."""
        states: Tensor = self.encoder.last_state(sequence, times, query_times, last)
        return states

    def user_vectors(self, states: Tensor, user_features: Tensor) -> Tensor:
        """Return (n, tower_dims[-1]), L2-normalised, for (n, embedding_dim) states and (n, n_features) features."""
        return functional.normalize(self.user_tower(states + self.from_user_features(user_features)), dim=-1)


class Tower(nn.Module):
    """An MLP beside a straight path; the identity at the start where the widths allow it."""

    def __init__(self, dim: int, tower_dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.straight = nn.Identity() if dim == tower_dims[-1] else nn.Linear(dim, tower_dims[-1], bias=False)
        layers: list[nn.Module] = []
        widths = (dim, *tower_dims)
        for width_in, width_out in zip(widths[:-2], widths[1:-1], strict=True):
            layers += [nn.Linear(width_in, width_out), nn.GELU(), nn.Dropout(dropout)]
        last = nn.Linear(widths[-2], widths[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., tower_dims[-1])."""
        out: Tensor = self.straight(x) + self.mlp(x)
        return out


def _matrix(values: Tensor | None, n_rows: int) -> Tensor:
    """Return the features, or (n_rows, 0): no features is a matrix without columns, not a special case."""
    return torch.zeros(n_rows, 0) if values is None else values


def _projection(width_in: int, width_out: int) -> nn.Linear:
    """Return a linear layer without bias; with no inputs it adds nothing."""
    layer = nn.Linear(max(width_in, 1), width_out, bias=False)
    nn.init.normal_(layer.weight, std=MIN_STD)
    if width_in == 0:
        layer.weight = nn.Parameter(torch.zeros(width_out, 0))
    return layer

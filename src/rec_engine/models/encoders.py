"""History encoders: a sequence of item inputs in, one state a position out, each seeing only what came before it.

All of them are causal and read sequences that are padded at the end, so padding can never reach a real position.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rec_engine.errors import ConfigError


def history_encoder(name: str, dim: int, *, n_blocks: int, n_heads: int, max_len: int, dropout: float) -> nn.Module:
    """Return the encoder of this name, mapping (batch, len, dim) to (batch, len, dim) float32.

    Raises:
        ConfigError: if the name is unknown or `n_heads` does not divide `dim`.
    """
    if dim % n_heads:
        raise ConfigError(f"model.n_heads = {n_heads} does not divide model.embedding_dim = {dim}")
    if name == "hstu":
        blocks = [HSTUBlock(dim, n_heads, max_len, dropout) for _ in range(n_blocks)]
        return nn.Sequential(_Scale(math.sqrt(dim)), nn.Dropout(dropout), *blocks)
    if name == "sasrec":
        layers = [SASRecBlock(dim, n_heads, dropout) for _ in range(n_blocks)]
        return nn.Sequential(_Scale(math.sqrt(dim)), _Positions(max_len, dim), nn.Dropout(dropout), *layers)
    if name == "mean":
        return RunningMean()
    if name == "none":
        return nn.Identity()
    raise ConfigError(f"model.user_encoder = {name!r} is unknown", hint="hstu, sasrec, mean or none")


class HSTUBlock(nn.Module):
    """Hierarchical sequential transduction unit: pointwise gated attention, no softmax, no feed-forward layer.

    U, V, Q, K = split(SiLU(W1 LN(x)));  A = SiLU(Q K^T + b(distance)) / n_visible;  out = x + W2(LN(A V) * U)

    References:
        Zhai et al., Actions speak louder than words, ICML 2024, section 3 (arXiv 2402.17152).
    """

    def __init__(self, dim: int, n_heads: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_in, self.norm_attended = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project_in, self.project_out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.bias_by_distance = nn.Parameter(torch.zeros(n_heads, max_len))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.project_in.weight, std=0.02)
        nn.init.xavier_uniform_(self.project_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, len, dim)."""
        batch, length, dim = x.shape
        gate, value, query, key = functional.silu(self.project_in(self.norm_in(x))).chunk(4, dim=-1)
        query, key, value = (self._heads(part) for part in (query, key, value))  # (batch, heads, len, dim / heads)
        places = torch.arange(length, device=x.device)
        distance = places[:, None] - places[None, :]  # (len, len)
        visible = (distance >= 0) / (places[:, None] + 1)  # (len, len): 1 / n_visible, 0 in the future
        bias = self.bias_by_distance[:, distance.clamp(min=0)]  # (heads, len, len)
        attention = functional.silu(query @ key.transpose(-1, -2) + bias) * visible  # (batch, heads, len, len)
        attended = (attention @ value).transpose(1, 2).reshape(batch, length, dim)
        out: Tensor = x + self.project_out(self.dropout(self.norm_attended(attended) * gate))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.reshape(batch, length, self.n_heads, dim // self.n_heads).transpose(1, 2)


class SASRecBlock(nn.Module):
    """Pre-norm causal self-attention and a feed-forward layer of four times the width.

    References:
        Kang and McAuley, Self-attentive sequential recommendation, ICDM 2018.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project_in, self.project_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, len, dim)."""
        batch, length, dim = x.shape
        shape = (batch, length, self.n_heads, dim // self.n_heads)
        query, key, value = (
            part.reshape(shape).transpose(1, 2) for part in self.project_in(self.norm_attention(x)).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.project_out(attended.transpose(1, 2).reshape(batch, length, dim)))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return out


class RunningMean(nn.Module):
    """The mean of all inputs up to each position: order does not matter, and nothing is learned."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, len, dim)."""
        counts = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        return x.cumsum(dim=1) / counts[:, None]


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class _Positions(nn.Module):
    """Adds a learned embedding of the place in the history."""

    def __init__(self, max_len: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(max_len, dim) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embedding[: x.shape[1]]

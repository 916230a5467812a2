"""History encoders: a sequence of item inputs in, one state a position out, each seeing only what came before it.

All of them are causal and read sequences that are padded at the end, so padding can never reach a real position. Each
is called with (inputs, times, query_times): `times` (batch, len) int64 Unix seconds of the inputs, `query_times` of the
moment at which each position is asked what comes next. Only HSTU reads the two. `last_state` does what `forward` does,
for one position of each sequence: all that a request asks for. Where `recomputes` is set, training keeps only what goes
into each block and works out what is inside of it a second time for the gradients.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rec_engine.errors import ConfigError

N_GAPS = 72
LOG_STEP = 0.301
"""Natural logarithm of the width of a bucket of time gaps: 72 of them reach from a second to 80 years."""
LONGEST_PAUSE = 10 * 365 * 86_400
"""Seconds; training sets the longest pause that is common in the data."""


def history_encoder(
    name: str, dim: int, *, n_blocks: int, n_heads: int, max_len: int, dropout: float
) -> "HSTU | Timeless":
    """Return the encoder of this name, mapping (batch, len, dim) to (batch, len, dim) float32.

    Raises:
        ConfigError: if the name is unknown or `n_heads` does not divide `dim`.
    """
    if dim % n_heads:
        raise ConfigError(f"model.n_heads = {n_heads} does not divide model.embedding_dim = {dim}")
    if name == "hstu":
        return HSTU(dim, n_blocks, n_heads, max_len, dropout)
    if name == "sasrec":
        layers = [SASRecBlock(dim, n_heads, dropout) for _ in range(n_blocks)]
        return Timeless(_Scale(math.sqrt(dim)), _Positions(max_len, dim), nn.Dropout(dropout), *layers)
    if name == "mean":
        return Timeless(RunningMean())
    if name == "none":
        return Timeless()
    raise ConfigError(f"model.user_encoder = {name!r} is unknown", hint="hstu, sasrec, mean or none")


class HSTU(nn.Module):
    """HSTU blocks over scaled inputs; gaps of time enter on a logarithmic scale.

    References:
        Zhai et al., Actions speak louder than words, ICML 2024, section 3 (arXiv 2402.17152).
    """

    max_pause: Tensor

    def __init__(self, dim: int, n_blocks: int, n_heads: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(HSTUBlock(dim, n_heads, max_len, dropout) for _ in range(n_blocks))
        self.recomputes = False
        # A pause longer than all that were seen in training counts as the longest: its bias was never learned.
        self.register_buffer("max_pause", torch.tensor(LONGEST_PAUSE))

    def forward(self, x: Tensor, times: Tensor, query_times: Tensor) -> Tensor:
        """Return (batch, len, dim)."""
        buckets = self._buckets(times, query_times)
        x = self.dropout(x * self.scale)
        for block in self.blocks:
            x = _recomputed(block, x, buckets) if self.recomputes and self.training else block(x, buckets)
        return x

    def last_state(self, x: Tensor, times: Tensor, query_times: Tensor, last: Tensor) -> Tensor:
        """Return (batch, dim), what `forward` has at the positions `last` (batch,): the last block has no other."""
        buckets = self._buckets(times, query_times)
        x = self.dropout(x * self.scale)
        *before, block = self.blocks
        for earlier in before:
            x = earlier(x, buckets)
        state: Tensor = block(x, buckets, last)[:, 0]
        return state

    def _buckets(self, times: Tensor, query_times: Tensor) -> Tensor:
        """Return (batch, len, len) buckets of the time between each position's question and each input."""
        query_times = torch.minimum(query_times, times + self.max_pause)
        return gap_buckets(query_times[:, :, None] - times[:, None, :])


def gap_buckets(gaps_seconds: Tensor) -> Tensor:
    """Return int64 places on a logarithmic scale, N_GAPS of them; a second or less (or the future) is place 0."""
    places = gaps_seconds.to(torch.float32).clamp(min=1).log() / LOG_STEP
    return places.clamp(max=N_GAPS - 1).to(torch.int64)


class HSTUBlock(nn.Module):
    """Hierarchical sequential transduction unit: pointwise gated attention, no softmax, no feed-forward layer.

    U, V, Q, K = split(SiLU(W1 LN(x)))
    A = SiLU(Q K^T + b(distance) + b(gap in time)) / n_visible
    out = x + W2(LN(A V) * U)
    """

    def __init__(self, dim: int, n_heads: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_in, self.norm_attended = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project_in, self.project_out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.bias_by_distance = nn.Parameter(torch.zeros(n_heads, max_len))
        self.bias_by_gap = nn.Parameter(torch.zeros(n_heads, N_GAPS))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.project_in.weight, std=0.02)
        nn.init.xavier_uniform_(self.project_out.weight)

    def forward(self, x: Tensor, buckets: Tensor, asked: Tensor | None = None) -> Tensor:
        """Return (batch, len, dim) for inputs of that shape and (batch, len, len) buckets of time gaps.

        With `asked`, one position (batch,) of each sequence, only that one's state is returned: (batch, 1, dim).
        """
        length = x.shape[1]
        gate, value, query, key = functional.silu(self.project_in(self.norm_in(x))).chunk(4, dim=-1)
        places = torch.arange(length, device=x.device)
        asking = places[None, :, None]  # (1, n_asked, 1)
        if asked is not None:
            x, gate, query, buckets = (_picked(rows, asked) for rows in (x, gate, query, buckets))
            asking = asked[:, None, None]  # (batch, 1, 1)
        query, key, value = (self._heads(part) for part in (query, key, value))  # (batch, heads, len, dim / heads)
        distance = asking - places  # (1 or batch, n_asked, len)
        visible = (distance >= 0) / (asking + 1)  # as distance: 1 / n_visible, 0 in the future
        by_distance = self._by_place(self.bias_by_distance, distance.abs())
        by_gap = self._by_place(self.bias_by_gap, buckets)
        attention = functional.silu(query @ key.transpose(-1, -2) + by_distance + by_gap) * visible[:, None]
        attended = (attention @ value).transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.project_out(self.dropout(self.norm_attended(attended) * gate))
        return out

    def _by_place(self, biases: Tensor, places: Tensor) -> Tensor:
        """Return (batch, heads, n_asked, len), of each head (heads, n) the bias at each place (batch, n_asked, len)."""
        if self.training:
            picked: list[Tensor] = [_Pick.apply(bias, places) for bias in biases]  # type: ignore[no-untyped-call]
        else:
            # As biases[places] it would be exported as GatherND, which takes half of the time of a long history.
            picked = [bias.expand(*places.shape[:-1], -1).gather(-1, places) for bias in biases]
        return torch.stack(picked, dim=1)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.reshape(batch, length, self.n_heads, dim // self.n_heads).transpose(1, 2)


def _recomputed(layer: nn.Module, *inputs: Tensor) -> Tensor:
    out: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
    return out


def _picked(rows: Tensor, places: Tensor) -> Tensor:
    """Return (batch, 1, width), one row of each (batch, len, width)."""
    return rows.gather(1, places[:, None, None].expand(-1, 1, rows.shape[-1]))


class _Pick(torch.autograd.Function):
    """values[places], with a backward pass that counts: torch's own takes a fifth of the training time."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.n_values = len(values)  # type: ignore[attr-defined]
        return values[places]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors  # type: ignore[attr-defined]
        sums = torch.bincount(places.ravel(), grad.ravel(), minlength=ctx.n_values)  # type: ignore[attr-defined]
        return sums.to(grad.dtype), None


class Timeless(nn.Module):
    """Layers one after the other that do not read the clock."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.recomputes = False

    def forward(self, x: Tensor, times: Tensor, query_times: Tensor) -> Tensor:  # noqa: ARG002
        """Return (batch, len, dim)."""
        for layer in self.layers:
            x = _recomputed(layer, x) if self.recomputes and self.training else layer(x)
        return x

    def last_state(self, x: Tensor, times: Tensor, query_times: Tensor, last: Tensor) -> Tensor:
        """Return (batch, dim), what `forward` has at the positions `last` (batch,)."""
        return _picked(self.forward(x, times, query_times), last)[:, 0]


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

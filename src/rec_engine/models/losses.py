"""Softmax losses over the catalogue: exact for small ones, sampled for large ones."""

import torch
from torch import Tensor
from torch.nn import functional

ROWS_A_CHUNK = 1024
"""Rows of logits at hand at one time: with some thousand items they stay in the processor's cache."""


def full_softmax(user_vectors: Tensor, item_vectors: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of the target among all items.

    loss = -mean_i log softmax_j(u_i . v_j / temperature)[target_i]

    The logits (n, n_items) never exist as a whole: loss and gradients are worked out a chunk of rows at a time.

    Args:
        user_vectors: (n, dim) float32, L2-normalised.
        item_vectors: (n_items, dim) float32, L2-normalised.
        targets: (n,) int64 item codes.
        temperature: > 0; small values sharpen the distribution. 0.05 to 0.2 is usual.
    """
    loss: Tensor = _ChunkedSoftmax.apply(user_vectors, item_vectors, targets, temperature)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(  # noqa: PLR0913 - a loss is a formula, and this is its list of symbols
    user_vectors: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    temperature: float,
) -> Tensor:
    """Return the mean cross-entropy of the target among itself and sampled items, corrected for the sampling.

    loss_i = -s_i + log(exp(s_i) + sum_j exp(s_ij - log(n q_j))),   s = u . v / temperature

    Without the correction items that are drawn more often are pushed further away, whatever users think of them. The
    target is not drawn at random, so it takes no correction, and where it was drawn as well it does not count twice.

    Args:
        user_vectors: (n, dim) float32, L2-normalised.
        item_vectors: (n_touched, dim) float32, L2-normalised.
        targets: (n,) int64 rows of item_vectors.
        negatives: (n_negatives,) int64 rows of item_vectors, shared by all users of the batch.
        log_expected: (n_negatives,) float32, log of n_negatives times the probability of drawing the item.
        temperature: > 0.

    References:
        Yi et al., Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019.
        Khrylchenko et al., Correcting the logQ correction, RecSys 2025: the target's part.
    """
    positive = (user_vectors * item_vectors[targets]).sum(dim=-1, keepdim=True) / temperature  # (n, 1)
    negative = user_vectors @ item_vectors[negatives].T / temperature - log_expected  # (n, n_negatives)
    negative = negative.masked_fill(targets[:, None] == negatives, float("-inf"))
    logits = torch.cat([positive, negative], dim=1)  # (n, 1 + n_negatives)
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


class _ChunkedSoftmax(torch.autograd.Function):
    """Loss and both gradients in one pass; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, users: Tensor, items: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        n = len(users)
        user_gradient, item_gradient = torch.empty_like(users), torch.zeros_like(items)
        loss = torch.zeros((), dtype=torch.float64, device=users.device)
        for first in range(0, n, ROWS_A_CHUNK):
            rows = slice(first, first + ROWS_A_CHUNK)
            logits = (users[rows] @ items.T).div_(temperature)  # (chunk, n_items)
            own = targets[rows, None]
            own_logits = logits.gather(1, own)
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            loss += (normaliser - own_logits).sum(dtype=torch.float64)
            residual = logits.sub_(normaliser).exp_()  # probabilities, then less one at the target
            residual.scatter_add_(1, own, torch.full_like(own_logits, -1.0))
            torch.matmul(residual, items, out=user_gradient[rows])
            item_gradient.addmm_(residual.T, users[rows])
        ctx.save_for_backward(user_gradient.div_(n * temperature), item_gradient.div_(n * temperature))
        return (loss / n).to(users.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        user_gradient, item_gradient = ctx.saved_tensors  # type: ignore[attr-defined]
        return user_gradient * grad, item_gradient * grad, None, None

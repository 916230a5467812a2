"""The account that training gives of itself, epoch by epoch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch brought; validation NDCG@10 is nan where nobody is left to validate on."""

    epoch: int
    loss: float
    validation_ndcg_at_10: float
    seconds: float

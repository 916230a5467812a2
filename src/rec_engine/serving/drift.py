"""What an answer tells of whether the model still fits its users and items."""

from dataclasses import dataclass

from rec_engine.serving.schemas import RecommendResponse


@dataclass(frozen=True, slots=True)
class Drift:
    """What shows over time whether users and items are still those of the training.

    Attributes:
        is_user_known: whether the user had a history.
        n_ranked: items whose scores are click probabilities.
        ranked_scores: sum of these.
    """

    is_user_known: bool
    n_ranked: int
    ranked_scores: float


def drift_of(answer: RecommendResponse) -> Drift:
    """Return what an answer tells of it."""
    scores = [item.score for item in answer.recommendations if item.metadata.ranking_score is not None]
    return Drift(answer.metadata.user_known, len(scores), sum(scores))

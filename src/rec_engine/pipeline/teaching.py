"""What teaches the re-ranker: requests with what was taken afterwards, or answers with what was clicked."""

from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.splits import Split
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.evaluation.exposures import exposures_of
from rec_engine.models.item_tower import ItemTower
from rec_engine.models.lightgbm_ranker import CTRRanker
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.pipeline.newcomers import NAME, newcomer_lesson, with_newcomers
from rec_engine.pipeline.ranking import fit_ranker, fit_to_clicks
from rec_engine.pipeline.shown import ANSWERS, shown_answers, shown_lesson
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import get_logger

logger = get_logger(__name__)


def teach_ranker(  # noqa: PLR0913, PLR0917 - the data, the settings and what was trained before
    unranked: TrainedModel,
    item_tower: ItemTower,
    dataset: RecommendationDataset,
    config: ModelConfig,
    split: Split,
    log_url: str | None,
) -> CTRRanker | None:
    """Return what orders the candidates, None where retrieval orders them better.

    Where the log tells of most of what was taken that it was shown, answers teach alone, if they are enough.

    Args:
        unranked: towers and index.
        item_tower: makes vectors of items that the towers have not met.
        dataset: what is known.
        config: model_config.yaml.
        split: what the towers were trained on, and what is held out; its test part is not touched.
        log_url: of the log that says what the service has shown, if there is one.
    """
    path, seed = assemble_path(unranked, split.train, split.shown), config.training.seed
    world = with_newcomers(unranked, item_tower, dataset.items, split, seed=seed)
    answers = shown_answers(log_url, dataset, split, config.data) if log_url else None
    shown = shown_lesson(path, answers, name=ANSWERS) if answers else None
    exposures = exposures_of(validation_task(split)) if shown else None
    if answers and shown and exposures:
        new = shown_lesson(world.inference, answers.without(world.is_new), world.is_new, name=NAME)
        try:
            return fit_to_clicks(path, split, config, [shown, new] if new else [shown], exposures)
        except TrainingError as error:
            logger.info("answers alone do not teach the re-ranker, requests do: %s", error)
    lessons = newcomer_lesson(world, seed=seed), shown
    return fit_ranker(path, split, config, [lesson for lesson in lessons if lesson])

"""The ranking features once more, in a world that ends with the request: what changes has read the future."""

from dataclasses import replace

import numpy as np

from rec_engine.evaluation.evaluator import Task
from rec_engine.evaluation.leaks import LeakCheck, check_features
from rec_engine.models.features import FEATURES, features
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path
from rec_engine.retrieval.candidates import CandidateGenerator, Candidates
from rec_engine.serving.inference import Query, RecommendationInference

N_REQUESTS = 20


def check_ranking_features(model: TrainedModel, path: RecommendationInference, task: Task) -> LeakCheck:
    """Return which features of some requests change once nothing is known that came after them.

    The requests are neighbours in time in the middle of the task, so that one world serves for all of them; the vectors
    of the towers stay what they are, `check_split` tells how much of the future they have seen.

    Args:
        model: what was trained.
        path: the request path as of the task, as it is evaluated.
        task: whose requests are looked at.
    """
    now = task.request_times()
    users = np.unique(task.targets.user_codes)
    users = users[np.diff(task.history.starts)[users] > 0]
    in_order = users[np.argsort(now[users], kind="stable")]
    middle = len(in_order) // 2
    chosen = in_order[max(0, middle - N_REQUESTS) : middle + 1]
    if not len(chosen):
        return LeakCheck("ranking features that know the future", found=False, detail="nobody asks anything")
    end = now[chosen].max()
    is_past = task.history.mask(lambda part: part.timestamps < end)
    until = min(end, task.history.timestamps.max() + 1)
    shown = task.shown.where(task.shown.timestamps < end)
    ending = assemble_path(model, task.history.where(is_past), shown, until=int(until))
    used, without = [], []
    for user_code in chosen.tolist():
        query = Query(task.state(user_code, int(now[user_code])), k=10)
        candidates = path.recommend(query).candidates
        used.append(features(query.state, candidates, path.items))
        seen_then = _scored_by(ending.generator, query, candidates)
        without.append(features(query.state, seen_then, ending.items))
    return check_features(list(FEATURES), np.concatenate(used), np.concatenate(without))


def _scored_by(generator: CandidateGenerator, query: Query, candidates: Candidates) -> Candidates:
    """Return the same candidates on the same ranks, with the scores that another generator's sources give them."""
    offers = [source.ask(query.state) for source in generator.sources]
    unknown = np.full(len(candidates.item_codes), np.nan, dtype=np.float32)
    scores = [offer.scores(candidates.item_codes) if offer else unknown for offer in offers]
    return replace(candidates, scores=np.stack(scores))

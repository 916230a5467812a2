"""One request, top to bottom. No HTTP, cache or clock in here: the API, the evaluator and batch jobs all call it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import numpy as np

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import FloatArray, IntArray, Interactions
from rec_engine.data.item_looks import NO_LOOKS, ItemLooks
from rec_engine.data.kernels import distinct_users
from rec_engine.data.state import UserState
from rec_engine.data.take_rates import TakeRates
from rec_engine.data.timeline import Timeline
from rec_engine.evaluation.evaluator import Recommender, Task
from rec_engine.evaluation.exposures import Exposures
from rec_engine.models.features import RECENT_ITEMS, ItemTable, features
from rec_engine.models.lightgbm_ranker import CTRRanker, probability
from rec_engine.models.user_tower import UserTower
from rec_engine.retrieval.budget import Budget
from rec_engine.retrieval.candidates import (
    CandidateGenerator,
    Candidates,
    HistorySource,
    LinkSource,
    PopularitySource,
    RecentPopularitySource,
    Source,
    TowerSource,
)
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import NARROW, Eligible
from rec_engine.retrieval.links import COVISITATION, SIMILAR, Links
from rec_engine.retrieval.predicates import Predicate
from rec_engine.serving.arrange import BY_SCORE, Arrangement, Slate, arrange
from rec_engine.serving.directives import NO_DIRECTIVES, Directives, shifted
from rec_engine.utils.config import RecommendationSettings

NEW_ITEM_USERS = 5
"""Items that fewer users met are new: they compete among themselves for some of the candidates."""
MAX_NEW_ITEMS = 1_000
"""New items that compete; where there are more, hardly an item is known and being new means nothing."""
NEW_ITEMS = "new items"
"""Name of the source in which they do."""
NO_ITEMS = np.empty(0, dtype=np.int32)
PINNED = "pinned"
Stage = Literal["state", "eligible", "recall", "rank", "arrange", "record"]
Lap = Callable[[Stage], None]


def unmeasured(_: Stage) -> None:
    """Let a stage end without anybody noting when."""


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked, in codes.

    Attributes:
        state: of the user.
        k: items wanted.
        categories: only items of one of these; all items when empty.
        filter: only items of which it is true.
        exclude: (n,) int32, items that must not be shown.
        use_reranking: whether the ranker may order the candidates.
        arrangement: what the order has to heed beside the scores.
        directives: what the rules of the shop ask for.
    """

    state: UserState
    k: int
    categories: Sequence[str] = ()
    filter: Predicate | None = None
    exclude: IntArray = field(default_factory=lambda: NO_ITEMS)
    use_reranking: bool = True
    arrangement: Arrangement = BY_SCORE
    directives: Directives = NO_DIRECTIVES


@dataclass(frozen=True, slots=True)
class Trace:
    """What every step made of one request.

    Attributes:
        steps: what was still allowed after each of them, by name; the last one is what could be shown.
        candidates: what the sources offered of it.
        ranking_scores: (n_candidates,) float32 log-odds of a click, None where nothing was re-ranked.
        features: (n_candidates, n_features) float32, what the ranker saw; None where nothing was re-ranked.
        ordered_by: (n_candidates,) float32, the scores after items were boosted and buried; no answer shows them.
        slate: the places in the candidates of the min(k, eligible) items that are shown, in order, and why there.
    """

    steps: tuple[tuple[str, Eligible], ...]
    candidates: Candidates
    ranking_scores: FloatArray | None
    features: FloatArray | None
    ordered_by: FloatArray
    slate: Slate

    @property
    def order(self) -> FloatArray:
        """(n_candidates,) float32, what the order goes by: log-odds of a click, or without a ranker, retrieval."""
        return retrieval_order(self.candidates) if self.ranking_scores is None else self.ranking_scores

    @property
    def scores(self) -> FloatArray:
        """(n_candidates,) float32, what the answer says of them: click probabilities, or what retrieval went by."""
        return self.order if self.ranking_scores is None else probability(self.ranking_scores)

    @property
    def slate_scores(self) -> FloatArray:
        """(min(k, eligible),) float32, the scores of the answer's items."""
        if self.ranking_scores is None:
            return self.order[self.slate.places]
        return probability(self.ranking_scores[self.slate.places])

    @property
    def item_codes(self) -> IntArray:
        """(min(k, eligible),) int32, the answer."""
        return self.candidates.item_codes[self.slate.places]

    @property
    def best_sources(self) -> list[str]:
        """Who offered each item of the slate on the best rank; PINNED for those that only a rule brought in."""
        ranks = self.candidates.ranks[:, self.slate.places]
        ranks[np.isnan(ranks)] = np.inf
        best = np.where(np.isfinite(ranks).any(axis=0), ranks.argmin(axis=0), -1)
        return [self.candidates.sources[row] if row >= 0 else PINNED for row in best.tolist()]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of the items beside their vectors, all of it from the same past.

    Attributes:
        popularity: (n_items,) float32, distinct users of each item.
        timeline: when each item was met.
        links: name to links between items.
        looks: how often people looked at them.
    """

    popularity: FloatArray
    timeline: Timeline
    links: Mapping[str, Links]
    looks: ItemLooks = NO_LOOKS

    @classmethod
    def of(
        cls, known: Interactions, links: Mapping[str, Links], looks: ItemLooks = NO_LOOKS, until: int | None = None
    ) -> "Knowledge":
        """Return what these interactions say, and that there were no others `until`; links must know nothing later."""
        n_items = next(iter(links.values())).n_items
        past = known.positive()
        popularity = distinct_users(past.item_codes, past.starts, n_items)
        return cls(popularity, Timeline(past, n_items, until), links, looks)


class RecommendationInference:
    """Answers queries from candidates and a ranker.

    Args:
        generator: names the candidates; its last source makes answers complete.
        catalogue: which items there are, and what they are like.
        items: what the ranker's features know of the items.
        ranker: orders the candidates; None leaves it to retrieval.
        settings: the `recommendations:` section.
        repeats: whether a user may be shown what he has met already; what he dislikes is never shown.
    """

    def __init__(
        self,
        generator: CandidateGenerator,
        catalogue: Catalogue,
        items: ItemTable,
        ranker: CTRRanker | None,
        settings: RecommendationSettings,
        *,
        repeats: bool,
    ) -> None:
        self.generator = generator
        self.catalogue = catalogue
        self.items = items
        self.ranker = ranker
        self.settings = settings
        self.repeats = repeats

    @classmethod
    def of(cls, bundle: ModelBundle, settings: RecommendationSettings) -> "RecommendationInference":
        """Return what serves a bundle as it is, without what happened since."""
        return cls.assemble(
            bundle.user_tower,
            bundle.index,
            Catalogue(bundle.items),
            knowledge=Knowledge.of(bundle.history, bundle.links, bundle.looks),
            ranker=bundle.ranker,
            settings=settings,
            repeats=bundle.repeats,
        )

    @classmethod
    def assemble(  # noqa: PLR0913 - one for each part of a bundle
        cls,
        tower: UserTower,
        index: FAISSIndex,
        catalogue: Catalogue,
        *,
        knowledge: Knowledge,
        ranker: CTRRanker | None,
        settings: RecommendationSettings,
        repeats: bool,
    ) -> "RecommendationInference":
        """Return the request path in which nothing known of the items is later than the knowledge.

        All parts are of the catalogue's capacity.
        """
        vector = _asked_once(tower.vector)
        sources: list[Source] = [
            TowerSource(index, vector, settings.min_score_threshold),
            LinkSource(knowledge.links[COVISITATION], COVISITATION, last=RECENT_ITEMS, share=0.5),
            LinkSource(knowledge.links[SIMILAR], SIMILAR, share=0.25),
            RecentPopularitySource(knowledge.timeline),
            TowerSource(index, vector, only=_new_items(knowledge, catalogue), name=NEW_ITEMS, share=0.05),
            *([HistorySource()] if repeats else []),
            PopularitySource(knowledge.popularity),
        ]
        rates = TakeRates(knowledge.looks, knowledge.timeline) if len(knowledge.looks) else None
        items = ItemTable(index.rows, knowledge.timeline, catalogue.category_masks, knowledge.links, rates)
        return cls(CandidateGenerator(sources), catalogue, items, ranker, settings, repeats=repeats)

    def recommend(self, query: Query, lap: Lap = unmeasured, budget: Budget | None = None) -> Trace:
        """Return the slate, best first, and how it came about; it has min(k, eligible) items, always.

        Args:
            query: what was asked.
            lap: is told of the end of each stage.
            budget: what fails, or what it leaves no time for, is done without, and it knows what that was.
        """
        budget = budget or Budget()
        steps = self.eligibility(query)
        lap("eligible")
        pinned, n_candidates = query.directives.pinned_within(query.k), self.n_candidates(query.k)
        candidates = self.generator.generate(query.state, steps[-1][1], query.k, n_candidates, pinned, budget)
        lap("recall")
        matrix, ranking_scores = self.rank(query, candidates, budget)
        lap("rank")
        scores = retrieval_order(candidates) if ranking_scores is None else ranking_scores
        shifts = query.directives.shifts
        scores = shifted(scores, candidates.item_codes, shifts, are_log_odds=ranking_scores is not None)
        new = candidates.rank_of(NEW_ITEMS) if query.arrangement.new_item_share else None
        slate = arrange(scores, candidates.item_codes, query.k, query.arrangement, self.items, query.directives, new)
        lap("arrange")
        return Trace(steps, candidates, ranking_scores, matrix, scores, slate)

    def eligibility(self, query: Query) -> tuple[tuple[str, Eligible], ...]:
        """Return what is left after each step, from the whole catalogue to what may be shown to this user now."""
        unwanted = query.state.disliked if self.repeats else query.state.item_codes
        wanted = self.allowed(query.categories)
        fitting = wanted.intersection(self.catalogue.attributes.matching(query.filter)) if query.filter else wanted
        unhidden = reduce(Eligible.minus, (hiding.items for hiding in query.directives.hidings), fitting)
        unseen = unhidden.without(unwanted)
        return (
            ("catalogue", self.catalogue.visible),
            ("categories", wanted),
            ("filter", fitting),
            ("rules", unhidden),
            ("history", unseen),
            ("exclude_items", unseen.without(query.exclude)),
        )

    def allowed(self, categories: Sequence[str]) -> Eligible:
        """Return what may be shown to anybody: the items of one of these categories, all of them without any."""
        visible = self.catalogue.visible
        return visible.intersection(self.catalogue.attributes.any_category(categories)) if categories else visible

    def n_candidates(self, k: int) -> int:
        """Return how many candidates a source with a share of 1 is asked for."""
        return max(k * self.settings.candidate_multiplier, self.settings.min_candidates)

    def rank(self, query: Query, candidates: Candidates, budget: Budget) -> tuple[FloatArray | None, FloatArray | None]:
        """Return features and log-odds of a click; none without a ranker, or for a user of whom nothing is known."""
        ranker = self.ranker
        if ranker is None or not query.use_reranking or len(query.state.liked) == 0:
            return None, None

        def ranked() -> tuple[FloatArray, FloatArray]:
            matrix = features(query.state, candidates, self.items)
            return matrix, ranker.log_odds(matrix)

        return budget.spend("ranker", ranked) or (None, None)


def _new_items(knowledge: Knowledge, catalogue: Catalogue) -> IntArray:
    """Return the items that few users met; where these are many, the least met of them, of those the latest codes.

    The next codes for items to come are among them, so that those compete as soon as they are there.
    """
    codes = np.flatnonzero(knowledge.popularity < NEW_ITEM_USERS).astype(np.int32)
    to_come = codes[codes >= catalogue.n_items][: NARROW - MAX_NEW_ITEMS]
    here = codes[codes < catalogue.n_items][::-1]
    least_met = here[np.argsort(knowledge.popularity[here], kind="stable")[:MAX_NEW_ITEMS]]
    return np.sort(np.concatenate([least_met, to_come]))


def _asked_once(vector: Callable[[UserState], FloatArray | None]) -> Callable[[UserState], FloatArray | None]:
    """Return the same function, which does not work out again what it was asked last: several sources ask it."""
    latest = threading.local()

    def remembered(state: UserState) -> FloatArray | None:
        if getattr(latest, "state", None) is not state:
            latest.vector, latest.state = vector(state), state
        found: FloatArray | None = latest.vector
        return found

    return remembered


def retrieval_order(candidates: Candidates) -> FloatArray:
    """Return (n_candidates,) float32: the cosine; an item that the towers did not offer stands 2 below all of those.

    Where the towers offered nothing, because nothing is known of the user, popularity alone counts: each item's users
    as a share of the most popular one's.
    """
    cosine, popularity = candidates.score_of("tower"), candidates.score_of("popularity")
    share = popularity / max(1.0, float(popularity.max(initial=0.0)))
    offered = np.isfinite(candidates.rank_of("tower"))
    below = np.float32(2.0 if offered.any() else 0.0)
    return np.where(offered, cosine, share - below).astype(np.float32)


def as_recommender(inference: RecommendationInference, task: Task, exposures: Exposures | None = None) -> Recommender:
    """Return the whole request path as what the evaluator takes: user codes and k to item codes, -1 padded.

    Args:
        inference: the path.
        task: who asks when.
        exposures: if they are known, the lists have these alone of the path's candidates, in its order.
    """
    now = task.request_times()

    def recommend(user_codes: IntArray, k: int) -> IntArray:
        lists = np.full((len(user_codes), k), -1, dtype=np.int32)
        for row, user_code in enumerate(user_codes.tolist()):
            trace = inference.recommend(Query(task.state(user_code, int(now[user_code])), k))
            found = _ordered(trace, exposures.items_of(user_code))[:k] if exposures else trace.item_codes
            lists[row, : len(found)] = found
        return lists

    return recommend


def _ordered(trace: Trace, items: IntArray) -> IntArray:
    """Return those of some items that are candidates, best first.

    Nothing else is excluded for it: what the ranker sees of a candidate depends on the others.
    """
    is_one = np.isin(trace.candidates.item_codes, items)
    order = np.argsort(-trace.ordered_by[is_one], kind="stable")
    codes: IntArray = trace.candidates.item_codes[is_one][order]
    return codes

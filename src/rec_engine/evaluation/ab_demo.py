"""Five experiments whose truth is known, because they are simulated: what the analysis says of each of them."""

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.errors import DataError
from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.assignment import assign_all
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.results import Analysis, Look
from rec_engine.experiments.standard_metrics import CLICKS, CONVERSIONS, IMPRESSIONS

DEMO_USERS = 120_000
MIN_USERS, MAX_USERS = 4_000, 5_000_000
DAYS = 28
N_RUNS, N_LOOKS, RUN_USERS = 25, 20, 4_000
LEVEL = 0.05
SESSION, LATENCY = "session_minutes", "answer_milliseconds"
METRICS = (
    Metric(name="CTR", numerator=CLICKS, denominator=IMPRESSIONS, role="primary"),
    Metric(name="Conversion", numerator=CONVERSIONS, is_share=True),
    Metric(name="Session time", numerator=SESSION, cap_quantile=0.999),
    Metric(name="Answer time", numerator=LATENCY, higher_is_better=False, role="guardrail", margin=0.02),
)
Generator = np.random.Generator
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shop:
    """How users of an arm are: means.

    Attributes:
        ctr: clicks an impression; users differ in it.
        conversion: share that buys.
        minutes: of a session.
        answer_ms: milliseconds until recommendations are there.
    """

    ctr: float = 0.032
    conversion: float = 0.018
    minutes: float = 12.5
    answer_ms: float = 40.0


CONTROL = Shop()
BETTER = Shop(ctr=0.037, conversion=0.021, minutes=14.2)
SLOWER = Shop(ctr=0.037, conversion=0.021, minutes=14.2, answer_ms=44.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """One simulated experiment.

    Attributes:
        name: of the scene.
        truth: what was simulated, in words.
        analysis: what was found.
    """

    name: str
    truth: str
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class Peeking:
    """How often an experiment without any effect was taken for one, when somebody looked many times.

    Attributes:
        runs: experiments.
        looks: at each.
        naive_z: share with p < 0.05 at any look, impressions taken for users.
        by_user: the same, impressions clustered by user.
        always_valid: share whose always-valid p-value was below 0.05 at any look.
        decided: share in which this analysis ever advised one of the arms.
    """

    runs: int
    looks: int
    naive_z: float
    by_user: float
    always_valid: float
    decided: float


def run_demo(seed: int = 42, n_users: int = DEMO_USERS) -> tuple[list[Scene], Peeking]:
    """Return the scenes, and what peeking does; the same for the same seed and users.

    Raises:
        DataError: if these are too few or too many users.
    """
    if not MIN_USERS <= n_users <= MAX_USERS:
        raise DataError(f"{n_users:,} users: between {MIN_USERS:,} and {MAX_USERS:,} are simulated")
    design = Design(metrics=METRICS, planned_users=n_users, planned_looks=1)
    shops = {
        "A/A": ("both arms are the same", CONTROL),
        "clear win": ("CTR 3.2% to 3.7%, conversion 1.8% to 2.1%, sessions 12.5 to 14.2 minutes", BETTER),
        "win with a harmed guardrail": ("the same gains, and answers take 10% longer", SLOWER),
        "sample-ratio bug": ("the same gains, and 5% of the treatment's users are lost in logging", BETTER),
    }
    scenes = []
    for place, (name, (truth, shop)) in enumerate(shops.items()):
        rng = np.random.default_rng([seed, place])
        arm = _arms(f"demo-{seed}-{place}", n_users)
        if name == "sample-ratio bug":
            arm = arm[~((arm == 1) & (rng.random(n_users) < LEVEL))]
        scenes.append(Scene(name, truth, analyze(design, _measured(rng, arm, shop), is_final=True)))
    return scenes, _peeking(seed)


def demo_json(seed: int, n_users: int, scenes: list[Scene], peeking: Peeking) -> str:
    """Return every figure as JSON."""
    told = [{"name": scene.name, "truth": scene.truth, "results": scene.analysis.as_dict()} for scene in scenes]
    whole = {"seed": seed, "users": n_users, "scenes": told, "peeking": asdict(peeking)}
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def _peeking(seed: int) -> Peeking:
    design = Design(metrics=METRICS[:1], planned_users=RUN_USERS, planned_looks=5, min_days=0, min_sample_size=50)
    found = np.array([_alarms(np.random.default_rng([seed, 100, run]), run, design) for run in range(N_RUNS)])
    naive_z, by_user, always_valid, decided = found.mean(axis=0).tolist()
    return Peeking(N_RUNS, N_LOOKS, naive_z, by_user, always_valid, decided)


def _alarms(rng: Generator, run: int, design: Design) -> tuple[bool, bool, bool, bool]:
    """Return whether each way to look ever took an experiment without effect for one."""
    whole = _measured(rng, _arms(f"peek-{run}", RUN_USERS), CONTROL)
    naive = by_user = always_valid = decided = False
    past: list[Look] = []
    for n in np.linspace(0, RUN_USERS, N_LOOKS + 1).astype(int).tolist()[1:]:
        analysis = analyze(design, _first(whole, n), past)
        past += [analysis.look] if analysis.look else []
        found = analysis.comparisons[0]
        naive |= _is_below(found.naive_p_value)
        by_user |= _is_below(found.p_value)
        always_valid |= _is_below(found.p_value_always_valid)
        decided |= analysis.recommendation.action in ("deploy_treatment", "keep_control")
    return naive, by_user, always_valid, decided


def _is_below(p_value: float | None) -> bool:
    return p_value is not None and p_value < LEVEL


def _arms(salt: str, n_users: int) -> NDArray[np.int32]:
    """Return (n_users,) int32: who meets which arm, by the hash that the service goes by."""
    experiment = Proposal.of(experiment_id="demo", name="Demo", salt=salt).experiment(0)
    return assign_all(experiment, range(n_users))


def _measured(rng: Generator, arm: NDArray[np.int32], treatment: Shop) -> Measurements:
    """Return what users did: some come often, and each has a click rate of his own."""
    n = len(arm)

    def mean(name: str) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.where(arm == 1, getattr(treatment, name), getattr(CONTROL, name))
        return means

    impressions = np.ceil(rng.lognormal(2.0, 1.0, n))
    ctr = rng.beta(2.0, 2.0 * (1 - mean("ctr")) / mean("ctr"))
    spread = 0.8
    return Measurements(
        arms=("control", "treatment"),
        arm=arm,
        phase=np.zeros(n, dtype=np.int32),
        shares=np.array([[0.5, 0.5]]),
        totals={
            IMPRESSIONS: impressions,
            CLICKS: rng.binomial(impressions.astype(np.int64), ctr).astype(np.float64),
            CONVERSIONS: (rng.random(n) < mean("conversion")).astype(np.float64),
            SESSION: mean("minutes") * rng.lognormal(-(spread**2) / 2, spread, n),
            LATENCY: mean("answer_ms") * rng.lognormal(-0.02, 0.2, n),
        },
        days=DAYS,
    )


def _first(whole: Measurements, n: int) -> Measurements:
    return Measurements(
        arms=whole.arms,
        arm=whole.arm[:n],
        phase=whole.phase[:n],
        shares=whole.shares,
        totals={name: values[:n] for name, values in whole.totals.items()},
        days=whole.days * n // max(1, whole.n_users),
    )

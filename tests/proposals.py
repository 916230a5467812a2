"""Experiments of the tests."""

from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.proposal import Proposal


def proposed(**fields: object) -> Proposal:
    """Return a proposal with these fields."""
    return Proposal.of(**{"experiment_id": "exp", "name": "Test", **fields})


def running(proposal: Proposal, started_at: int = 0) -> Experiment:
    """Return an experiment that has begun."""
    return proposal.experiment(started_at).model_copy(update={"status": "running", "started_at": started_at})

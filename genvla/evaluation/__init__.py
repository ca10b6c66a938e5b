"""How good a policy is: episodes, success tables, figures and videos."""

from genvla.evaluation.episodes import episode_specs, run_episodes
from genvla.evaluation.evaluate import evaluate, evaluate_specs
from genvla.evaluation.results import EvaluationResult

__all__ = ["EvaluationResult", "episode_specs", "evaluate", "evaluate_specs", "run_episodes"]

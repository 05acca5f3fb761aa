"""Online meta-learning: tasks that arrive one after another (Finn et al. 2019)."""

from maml_tf.online.learner import OnlineLearner
from maml_tf.online.strategies import STRATEGIES, Strategy
from maml_tf.online.stream import Stream, WarmStart
from maml_tf.online.update import UpdateProcedure

__all__ = ["STRATEGIES", "OnlineLearner", "Strategy", "Stream", "UpdateProcedure", "WarmStart"]

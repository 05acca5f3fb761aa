"""The settings of a search for policies, in groups that belong together."""

import dataclasses
import itertools
from collections.abc import Callable

from maml_tf.rl import vpg


@dataclasses.dataclass(frozen=True)
class InnerLoop:
  """How a policy adapts to a task.

  Args:
    inner_lr: the step size alpha, as in `maml.adapt`.
    num_updates: inner steps in training.
    first_order: drop the second derivatives.
    inner_loss: of `vpg`, the loss of the inner steps.
  """

  inner_lr: object = 0.1
  num_updates: int = 1
  first_order: bool = False
  inner_loss: Callable = vpg.loss


@dataclasses.dataclass(frozen=True)
class Sampling:
  """What a meta-iteration collects.

  Args:
    meta_batch_size: tasks.
    rollouts_per_task: rollouts of each task for each gradient.
    goals_differ: every rollout has a goal of its own (to train one policy on all tasks); False: every task has.
  """

  meta_batch_size: int = 40
  rollouts_per_task: int = 20
  goals_differ: bool = False


@dataclasses.dataclass(frozen=True)
class Curvature:
  """What the curvature of the trust region is computed on.

  Args:
    hvp_subsample: share of the data; 1.0: all of it, exact.
    hvp_sample: what it is a share of: "steps" (evenly spaced time steps of all tasks) or "tasks" (the first of them).
      With few tasks the curvature is that of few adaptations, and the line search shortens its steps.
  """

  hvp_subsample: float = 1.0
  hvp_sample: str = "steps"

  def __post_init__(self):
    if not 0.0 < self.hvp_subsample <= 1.0:
      raise ValueError(f"Curvature: hvp_subsample must be above 0 and at most 1, got {self.hvp_subsample!r}")
    if self.hvp_sample not in ("steps", "tasks"):
      raise ValueError(f"Curvature: hvp_sample must be 'steps' or 'tasks', got {self.hvp_sample!r}")


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How a policy is adapted to be evaluated.

  Args:
    eval_updates: inner steps.
    eval_lr: step sizes, as in `maml.adapt`; None: those of training.
    eval_rollouts: rollouts of each task for each gradient; None: as many as in training.
  """

  eval_updates: int = 3
  eval_lr: object = None
  eval_rollouts: int | None = None

  def completed(self, inner, sampling):
    """The same with what is None taken from training."""
    eval_lr = inner.inner_lr if self.eval_lr is None else self.eval_lr
    eval_rollouts = sampling.rollouts_per_task if self.eval_rollouts is None else self.eval_rollouts
    return dataclasses.replace(self, eval_lr=eval_lr, eval_rollouts=eval_rollouts)


def with_settings(groups, settings):
  """Groups with some of their fields replaced.

  Args:
    groups: dataclass instances; no two have a field of the same name.
    settings: dict of field name -> value.

  Returns:
    List like `groups`.

  Raises:
    TypeError: a name that no group has.
  """
  names = [[field.name for field in dataclasses.fields(group)] for group in groups]
  known = list(itertools.chain(*names))
  unknown = [name for name in settings if name not in known]
  if unknown:
    raise TypeError(f"unexpected setting {', '.join(unknown)}; there are {', '.join(known)}")
  chosen = [{name: settings[name] for name in group if name in settings} for group in names]
  return [dataclasses.replace(group, **changes) for group, changes in zip(groups, chosen, strict=True)]

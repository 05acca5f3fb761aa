"""Many simulations of one task family at once, as a `gymnasium.vector.VectorEnv`."""

import os

from maml_tf.rl.envs import DEFINITIONS
from maml_tf.rl.envs.ant import Ant

__all__ = ["make", "usable_cores"]


def make(name, num_envs, sim_threads=0):
  """A batched simulator of `num_envs` environments.

  HalfCheetah steps in MuJoCo's own thread pool. Ant steps in worker processes, since the pool hands back no contact
  forces; they are started as `python -m maml_tf.rl.simulators.worker`, so that a script needs no `__main__` guard.

  Args:
    name: one of `maml_tf.rl.envs.DEFINITIONS`.
    num_envs: how many environments.
    sim_threads: threads or processes; 0 for as many as there are usable cores. Results do not depend on it.

  Returns:
    A `vector.MujocoVectorEnv`.
  """
  if name not in DEFINITIONS:
    raise ValueError(f"name: expected one of {list(DEFINITIONS)}, got {name!r}")
  if num_envs < 1 or sim_threads < 0:
    raise ValueError(f"num_envs, sim_threads: expected at least 1 and 0, got {num_envs} and {sim_threads}")
  definition = DEFINITIONS[name]
  sim_threads = min(sim_threads or usable_cores(), num_envs)
  if isinstance(definition, Ant):
    from maml_tf.rl.simulators.processes import ProcessVectorEnv

    return ProcessVectorEnv(definition, num_envs, sim_threads)
  from maml_tf.rl.simulators.threads import ThreadVectorEnv

  return ThreadVectorEnv(definition, num_envs, sim_threads)


def usable_cores():
  """How many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""DIAYN (Eysenbach, Gupta, Ibarz and Levine 2018): skills that can be told apart by the states they visit.

A compact one, on-policy: TRPO in place of soft actor-critic, since what is kept is the discriminator, not the policy.
"""

import io
import os

import numpy as np
import tensorflow as tf

from maml_tf import progress, randomness
from maml_tf.rl import policies
from maml_tf.rl.environments import GoalObserved
from maml_tf.rl.meta_trpo import MetaPolicySearch
from maml_tf.rl.settings import InnerLoop, Sampling
from maml_tf.rl.skills.rewards import Discriminator, ProposedTasks
from maml_tf.rl.trpo import TRPO
from maml_tf.training import optimizers

ROLLOUTS = 100  # of an iteration, each of a skill of its own
DISCRIMINATOR_STEPS, RATE = 10, 1e-3
STORED, STORE_EVERY = "progress.npz", 10


class DIAYN:
  """A policy that is told a skill, and a discriminator that guesses the skill from the state.

  Args:
    environment: an `Environment`, whose reward is not looked at.
    num_skills: K.
    rollouts: of an iteration.
  """

  def __init__(self, environment, num_skills, rollouts=ROLLOUTS):
    self._environment, self._sampling = environment, Sampling(1, rollouts, goals_differ=True)
    self.discriminator = Discriminator(environment.observation_dim, num_skills)
    self._policy = policies.make_policy(self._proposed(None))
    self._outer, self._adam = TRPO(), optimizers.Adam(RATE)

  def initial_state(self, seed):
    """Nested dict of tensors, from a Python integer."""
    policy, discriminator = self._policy.initial_weights(seed), self.discriminator.initial_weights(seed)
    return {
      "policy": policy, "outer": self._outer.initial_state(policy), "discriminator": discriminator,
      "adam": self._adam.initial_state(discriminator),
    }  # fmt: skip

  def step(self, state, seed):
    """One iteration, traceable: (new state, metrics)."""
    search = MetaPolicySearch(
      self._policy, self._proposed(state["discriminator"]), self._outer, inner=InnerLoop(num_updates=0),
      sampling=self._sampling,
    )  # fmt: skip
    objective, collected = search.objective(state["policy"], seed)
    policy, outer, _ = self._outer.update(objective, state["policy"], state["outer"])
    discriminator, adam, loss = self._learn(state, objective.outer_batch.trajectory)
    state = {"policy": policy, "outer": outer, "discriminator": discriminator, "adam": adam}
    return state, {"loss": loss, "return": collected["return/step_0"]}

  def _proposed(self, weights):
    reward = None if weights is None else self.discriminator.reward(weights)
    return GoalObserved(ProposedTasks(self._environment, self.discriminator.num_skills, reward))

  def _learn(self, state, trajectory):
    """(weights, state of the optimiser, loss before) of the discriminator, after steps on all states that count."""
    dim = self._environment.observation_dim
    states, skills = trajectory.observation[..., :dim], trajectory.observation[..., 0, dim:]
    weights, adam, first = state["discriminator"], state["adam"], None
    for _ in range(DISCRIMINATOR_STEPS):
      with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = self.discriminator.loss(weights, states, skills, trajectory.mask)
      weights, adam = self._adam.update(tape.gradient(loss, weights), adam, weights)
      first = loss if first is None else first
    return weights, adam, first

  def train(self, iterations, seed, folder):
    """Trains from the last stored iteration in `folder` on; returns the discriminator's weights, NumPy arrays."""
    state, first = _restore(folder / STORED, self.initial_state(seed))
    root = randomness.fold(randomness.make_seed(seed), "diayn")
    step = tf.function(self.step, autograph=False)
    with progress.bar(range(first, iterations), desc="skills", initial=first, total=iterations) as bar:
      for number in bar:
        state, metrics = step(state, randomness.fold(root, number))
        if (number + 1) % STORE_EVERY == 0:
          _store(folder / STORED, state, number + 1)
          bar.set_postfix(loss=f"{float(metrics['loss']):.3f}")
    return {name.replace("/", "."): value.numpy() for name, value in state["discriminator"].items()}


def _store(path, state, iterations):
  content = io.BytesIO()
  arrays = {str(i): leaf.numpy() for i, leaf in enumerate(tf.nest.flatten(state))}
  np.savez(content, iterations=iterations, **arrays)
  temporary = path.with_name(f".{path.name}.half")
  with open(temporary, "wb") as file:
    file.write(content.getvalue())
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _restore(path, initial):
  """(state, iterations that are done); the initial one where nothing is stored."""
  if not path.is_file():
    return initial, 0
  with np.load(path, allow_pickle=False) as stored:
    leaves = [tf.constant(stored[str(i)]) for i in range(len(tf.nest.flatten(initial)))]
    return tf.nest.pack_sequence_as(initial, leaves), int(stored["iterations"])

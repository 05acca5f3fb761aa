"""Trains at the sizes of the domains' presets: `python tests/preset_runs.py FOLDER DOMAIN...`, for test_determinism.py.

Every domain that is named is trained to its number of iterations in FOLDER/DOMAIN, from the newest checkpoint there.
Pixels are random: what is tested is the arithmetic. The full sizes of reinforcement learning take minutes; rollouts
are shorter here unless MAML_TF_FULL_SIZES is set.
"""

import os
import pathlib
import sys

import small_runs
import tensorflow as tf

from maml_tf import MAML, evaluation, models, randomness, tasks
from maml_tf.rl import environments, policies, simulators, trpo
from maml_tf.rl.envs import DEFINITIONS
from maml_tf.rl.meta_trpo import MetaPolicySearch
from maml_tf.training import optimizers
from maml_tf.training.learner import SupervisedLearner
from maml_tf.training.trainer import Schedule

FULL_SIZES = bool(os.environ.get("MAML_TF_FULL_SIZES"))
# Three checkpoints are kept, and what is compared begins from the oldest.
ITERATIONS = {"sinusoid": 60, "sinusoid_jit": 60, "omniglot": 4, "miniimagenet": 2, "point": 3, "cheetah": 2}


class RandomImages(tasks.TaskDistribution):
  """Five classes of grey or coloured noise around an image of their own."""

  def __init__(self, shape, queries):
    self.shape, self.queries = shape, queries

  def sample(self, seed, num_tasks):
    def draw(stream, shape):
      return randomness.uniform(randomness.fold(seed, stream), shape, 0.0, 1.0, tf.float32)

    centres = draw("centres", [num_tasks, 5, *self.shape])
    x = [centres + draw(f"noise{i}", [num_tasks, 5, *self.shape]) for i in range(1 + self.queries)]
    y = tf.tile(tf.range(5)[tf.newaxis], [num_tasks, 1])
    return tasks.TaskBatch(x[0], y, tf.concat(x[1:], 1), tf.tile(y, [1, self.queries]))


def sinusoid():
  maml = MAML(models.MLP(output_dim=1, hidden=(40, 40), input_shape=(1,)), inner_lr=0.001)
  return SupervisedLearner(maml, tasks.Sinusoid(10, 10), meta_batch_size=25, eval_updates=1)


def images(shape, filters, max_pool, steps, inner_lr, queries, **settings):
  model = models.ConvNet(5, filters=filters, input_shape=shape, norm="batch_norm", max_pool=max_pool)
  maml = MAML(model, "crossentropy", inner_lr, steps, loss_reduction="per_class_sum")
  return SupervisedLearner(maml, RandomImages(shape, queries), eval_updates=1, **settings)


def policy_search(environment, inner_lr):
  policy = policies.make_policy(environment)
  return MetaPolicySearch(policy, environment, trpo.TRPO(), inner_lr=inner_lr, eval_rollouts=2, eval_updates=1)


def cheetah():
  def make(num_envs):
    return simulators.make("cheetah_dir", num_envs, 2)

  return policy_search(environments.Simulated(DEFINITIONS["cheetah_dir"], make, 200 if FULL_SIZES else 20), 0.1)


LEARNERS = {
  "sinusoid": sinusoid,
  "sinusoid_jit": sinusoid,
  "omniglot": lambda: images((28, 28, 1), 64, False, 1, 0.4, 1, meta_batch_size=32),
  "miniimagenet": lambda: images(
    (84, 84, 3), 32, True, 5, 0.01, 15, meta_batch_size=4, optimizer=optimizers.Adam(clip_value=10.0)
  ),
  "point": lambda: policy_search(environments.PointNavigation(100 if FULL_SIZES else 20), 0.5),
  "cheetah": cheetah,
}


def main(folder, *domains):
  tf.config.threading.set_inter_op_parallelism_threads(2)
  tf.config.threading.set_intra_op_parallelism_threads(2)
  for domain in domains:
    schedule = Schedule(ITERATIONS[domain], 1, ITERATIONS[domain], 1, validation_tasks=evaluation.BLOCK)
    path, jit_compile = pathlib.Path(folder) / domain, domain.endswith("jit")
    learner = LEARNERS[domain]()
    # Validating so many tasks takes longer than the iterations.
    learner.evaluate = learner.evaluate_block = lambda *_: {"loss": tf.zeros([2, evaluation.BLOCK])}
    small_runs.trainer(path, schedule, learner, jit_compile=jit_compile).train()


if __name__ == "__main__":
  main(*sys.argv[1:])

"""The SavedModel of a policy: used without this package, it acts and adapts as the library does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import export, randomness
from maml_tf.maml import adapt_with_fresh_data
from maml_tf.rl import vpg
from maml_tf.rl.advantages import AdvantageEstimator
from maml_tf.rl.environments import PointNavigation, TabularMDP
from maml_tf.rl.export import PolicyModule
from maml_tf.rl.policies import CategoricalMLP, GaussianMLP
from maml_tf.rl.rollouts import collect

RATES = (0.5, 0.25)
ESTIMATOR = AdvantageEstimator(discount=0.95, gae_lambda=0.9)
SEED = (3, 7)


class Learner:
  """As much of one as `export.save` needs."""

  def __init__(self, make_module):
    self.export_module = make_module


class OneEpisode(PointNavigation):
  """2D navigation whose rollouts are one episode each, as `adapt` takes them."""

  restarts = False


def make_case(kind):
  """(policy, environment, its goal [1, R, G])."""
  if kind == "gaussian":
    environment, goal = OneEpisode(horizon=30), [[[0.06, 0.05]] * 12]
    environment.tolerance = 0.04  # some rollouts end before the others
    return GaussianMLP(2, 2, (16, 16), initial_std=0.5), environment, tf.constant(goal)
  environment = TabularMDP(4, 3, horizon=8)
  goal = environment.sample_goals(randomness.make_seed(5), [1])
  return CategoricalMLP(4, 3, (8,)), environment, tf.repeat(goal[:, tf.newaxis], 6, axis=1)


def library_adapts(policy, environment, goals, weights):
  """The library's own two steps: (list of plain weights after 0, 1, 2 steps, list of the trajectories)."""

  def rollouts(weights, step):
    trajectory, _ = collect(policy, weights, environment, goals, randomness.fold(randomness.make_seed(0), step))
    return vpg.Batch(trajectory, ESTIMATOR(trajectory))

  start = {name: weight[tf.newaxis] for name, weight in weights.items()}
  steps, batches = adapt_with_fresh_data(rollouts, lambda batch: vpg.loss(policy, batch), start, list(RATES), 2)
  return [{n: w[0] for n, w in step.items()} for step in steps], [batch.trajectory for batch in batches]


@pytest.fixture(scope="module", params=["gaussian", "categorical"])
def saved(request, tmp_path_factory):
  """(policy, weights, path of the SavedModel, path of the library's own results)."""
  policy, environment, goals = make_case(request.param)
  weights = policy.initial_weights(0)
  folder = tmp_path_factory.mktemp(request.param)
  learner = Learner(lambda state: PolicyModule(policy, state["weights"], list(RATES), ESTIMATOR, {"a": "b"}))
  export.save(learner, {"weights": weights}, folder / "saved_model")

  steps, trajectories = library_adapts(policy, environment, goals, weights)
  observation = tf.random.stateless_normal([9, policy.example_shape[0]], SEED)
  results = {"rates": np.float32(RATES), "observation": observation, "seed": np.int32(SEED)}
  for i, trajectory in enumerate(trajectories):
    for field in ("observation", "action", "reward", "mask"):
      results[f"data_{i}/{field}"] = getattr(trajectory, field)[0]
  for i, step in enumerate(steps):
    distribution = policy.distribution(step, observation[tf.newaxis])
    results |= {f"weights_{i}/{name}": weight for name, weight in step.items()}
    results |= {f"act_{i}": distribution.sample(SEED)[0], f"mode_{i}": distribution.mode()[0]}
  np.savez(folder / "library.npz", **{name: np.asarray(value) for name, value in results.items()})
  return policy, weights, folder / "saved_model", folder / "library.npz"


# Runs in a process that cannot import this package or Keras.
CLIENT = """
import json, sys
sys.modules["maml_tf"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf

m, library = tf.saved_model.load(sys.argv[1]), np.load(sys.argv[2])
rates, observation, seed = library["rates"], library["observation"], library["seed"]

def close(got, expected):
  assert got.dtype == expected.dtype and got.shape == expected.shape, (got, expected)
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

def weights_equal(weights, step):
  assert sorted(weights) == sorted(n.split("/", 1)[1] for n in library if n.startswith(f"weights_{step}/"))
  for name, value in weights.items():
    close(value, library[f"weights_{step}/{name}"])

weights = m.initialization()
for step in range(3):
  weights_equal(weights, step)
  close(m.act(weights, observation, seed), library[f"act_{step}"])
  close(m.act_deterministic(weights, observation), library[f"mode_{step}"])
  if step < 2:
    data = [library[f"data_{step}/{field}"] for field in ("observation", "action", "reward", "mask")]
    before, weights = weights, m.adapt(weights, *data, rates[step])

# The first step size is the default, sizes are free, and numbers of Python will do.
data = [library[f"data_0/{field}"] for field in ("observation", "action", "reward", "mask")]
weights_equal(m.adapt(m.initialization(), *data), 1)
weights_equal(m.adapt(m.initialization(), *data, float(rates[0])), 1)
assert m.act(weights, observation[:4], seed).shape[0] == 4
shorter = m.adapt(m.initialization(), *[values[:3, :5] for values in data], inner_lr=0.1)
assert all(np.all(np.isfinite(value)) for value in shorter.values())
if data[1].dtype == np.int32:
  weights_equal(m.adapt(m.initialization(), data[0], data[1].astype(np.int64), *data[2:]), 1)

# Signatures.
close(m.signatures["act"](observation=tf.constant(observation), seed=tf.constant(seed))["action"], library["act_0"])
named = dict(zip(("observation", "action", "reward", "mask"), map(tf.constant, data)))
out = m.signatures["adapt_and_act"](**named, inner_lr=tf.constant(rates[0]), new_observation=tf.constant(observation),
                                    seed=tf.constant(seed))
close(out["action"], library["act_1"])
print("all equal")
"""


def test_acts_and_adapts_as_the_library_does_without_it(saved, tmp_path):
  script = tmp_path / "client.py"
  script.write_text(CLIENT)
  done = subprocess.run(
    [sys.executable, str(script), str(saved[2]), str(saved[3])],
    capture_output=True, text=True, timeout=300, cwd=tmp_path,
  )  # fmt: skip
  assert done.stdout.strip() == "all equal", done.stderr[-2000:]


def test_rollouts_of_the_case_end_at_different_times(saved):
  mask = np.load(saved[3])["data_0/mask"]
  assert mask[:, 0].all()
  if isinstance(saved[0], GaussianMLP):
    assert len(set(mask.sum(axis=1))) > 1


def test_steps_move_the_weights(saved):
  library = np.load(saved[3])
  for name in saved[1]:
    first = np.abs(library[f"weights_1/{name}"] - library[f"weights_0/{name}"]).max()
    second = np.abs(library[f"weights_2/{name}"] - library[f"weights_1/{name}"]).max()
    assert min(first, second) > 1e-5, name


def test_initialization_round_trip(saved):
  policy, weights, path, _ = saved
  loaded, metadata = export.load_initialization(path, policy.weight_shapes)
  assert list(loaded) == list(weights)
  for name, value in loaded.items():
    np.testing.assert_array_equal(value, weights[name])
  assert metadata["a"] == "b"
  assert (metadata["inner_lr"], metadata["discount"], metadata["gae_lambda"]) == (list(RATES), 0.95, 0.9)
  assert metadata["policy"] == json.loads(json.dumps(policy.get_config()))


def test_signatures_are_listed_by_the_command_line_tool(saved):
  done = subprocess.run(
    [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", str(saved[2]), "--all"],
    capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  for name in ("signature_def['act']", "signature_def['adapt_and_act']", "new_observation", "inner_lr", "mask"):
    assert name in done.stdout, done.stderr[-2000:]


def test_what_lies_after_the_end_of_an_episode_counts_for_nothing():
  policy = GaussianMLP(2, 2, (4,))
  module = PolicyModule(policy, policy.initial_weights(0), 0.1)
  rng = np.random.default_rng(0)
  observation, action = rng.normal(size=(2, 3, 5, 2)).astype(np.float32)
  reward = rng.normal(size=(3, 5)).astype(np.float32)
  mask = np.float32([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
  expected = module.adapt(module.initialization(), observation, action, reward, mask, 0.1)
  observation[mask == 0] *= 3
  action[mask == 0] += 1
  reward[mask == 0] = 100
  got = module.adapt(module.initialization(), observation, action, reward, mask, 0.1)
  for name in got:
    np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("inner_lr", [{"log_std": 0.1}, [], None])
def test_step_sizes_that_are_no_numbers_are_refused(inner_lr):
  policy = GaussianMLP(2, 2, (4,))
  with pytest.raises(ValueError, match="inner_lr: expected a number, or a list with one for each step"):
    PolicyModule(policy, policy.initial_weights(0), inner_lr)

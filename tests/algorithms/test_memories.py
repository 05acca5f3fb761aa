"""The memory-augmented network and the memory module against NumPy, and as methods of the experiments."""

import clusters
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.mann import MANN, access
from maml_tf.algorithms.memory import Memory, margin_loss, nearest, stored
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve

MADE = {
  "mann": lambda model, **settings: MANN(
    model, recurrent_size=32, memory_slots=12, slot_size=6, read_heads=2, **settings
  ),
  "memory": lambda model, **settings: Memory(model, memory_slots=8, **settings),
}  # fmt: skip


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  exponentials = np.exp(x - x.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nearly_unit(x):
  """Of length 1, but for rows near 0."""
  return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-4)


# The memory-augmented network -----------------------------------------------------------------------------------------


def numpy_access(memory, usage, read, keys, gates, decay):
  """Santoro et al. 2016, eq. 2 to 8, in loops: memory [M, W], usage [M], read [R, M], keys [R, W], gates [R]."""
  places = np.argsort(usage, kind="stable")[: len(keys)]
  memory, write = memory.copy(), np.zeros_like(read)
  for head, place in enumerate(places):
    memory[place] = 0
    write[head] = gates[head] * read[head]
    write[head, place] += 1 - gates[head]
  for head in range(len(keys)):
    memory += write[head][:, None] * keys[head]
  read = np.stack([softmax(nearly_unit(memory) @ nearly_unit(key)) for key in keys])
  usage = decay * usage + read.sum(0) + write.sum(0)
  return memory, usage, read, (read @ memory).ravel()


def test_least_recently_used_access(float64):
  memory, usage, read = normal(2, 5, 3), np.abs(normal(2, 5, seed=1)), softmax(normal(2, 2, 5, seed=2))
  keys, gates = normal(2, 2, 3, seed=3), sigmoid(normal(2, 2, seed=4))
  state = {"memory": tf.constant(memory), "usage": tf.constant(usage), "read_weights": tf.constant(read)}
  found = access(state, tf.constant(keys), tf.constant(gates), 0.95)
  for task in range(2):
    expected = numpy_access(memory[task], usage[task], read[task], keys[task], gates[task], 0.95)
    for name, value in zip(("memory", "usage", "read_weights", "reading"), expected, strict=True):
      np.testing.assert_allclose(found[name][task], value, rtol=1e-9)


def test_a_label_comes_one_step_late_and_queries_do_not_see_each_other(float64):
  """By NumPy, step by step: x_t with the label of x_(t-1), a query with the label of the last support example."""
  algorithm = MADE["mann"](clusters.bare())
  fresh = algorithm.initial_weights(0)
  weights = {n: tf.constant(0.4 * normal(*w.shape, seed=i)) for i, (n, w) in enumerate(fresh.items())}
  batch = clusters.sampled()
  outputs = algorithm.predict(algorithm.adapt(weights, batch.support_x, batch.support_y), batch.query_x)
  w = {name: weight.numpy() for name, weight in weights.items()}
  (cell,) = {name.rpartition("/")[0] for name in w if name.endswith("recurrent_kernel")}

  def step(state, x, label):
    memory, usage, read, reading, hidden, carry = state
    gates = np.concatenate([x, label, reading]) @ w[f"{cell}/kernel"] + hidden @ w[f"{cell}/recurrent_kernel"]
    gate_in, forget, candidate, out = np.split(gates + w[f"{cell}/bias"], 4)
    carry = sigmoid(forget) * carry + sigmoid(gate_in) * np.tanh(candidate)
    hidden = sigmoid(out) * np.tanh(carry)
    keys = np.tanh(hidden @ w["controller/keys/kernel"] + w["controller/keys/bias"]).reshape(2, 6)
    writes = sigmoid(hidden @ w["controller/gates/kernel"] + w["controller/gates/bias"])
    return *numpy_access(memory, usage, read, keys, writes, 0.95), hidden, carry

  for task in range(2):
    labels = np.eye(6)[batch.support_y[task].numpy()] * [1, 1, 1, 1, 1, 0] + [0, 0, 0, 0, 0, 1]
    state = (np.zeros([12, 6]), np.zeros(12), np.zeros([2, 12]), np.zeros(12), np.zeros(32), np.zeros(32))
    for x, label in zip(batch.support_x[task].numpy(), [np.zeros(6), *labels[:-1]], strict=True):
      state = step(state, x, label)
    for query in (0, 6):
      _, _, _, reading, hidden, _ = step(state, batch.query_x[task, query].numpy(), labels[-1])
      expected = np.concatenate([hidden, reading]) @ w["controller/head/kernel"] + w["controller/head/bias"]
      np.testing.assert_allclose(outputs[task, query], expected, rtol=1e-6)


# The memory module ----------------------------------------------------------------------------------------------------


def test_keys_move_where_they_are_right_and_the_oldest_is_replaced():
  """Three places, by hand: a right neighbour moves, a wrong one leaves its place and the oldest goes."""
  memory = {name: tf.zeros(shape) for name, shape in (("keys", [1, 3, 2]), ("values", [1, 3, 2]), ("ages", [1, 3]))}
  one, two = [[1.0, 0.0]], [[0.0, 1.0]]

  def store(memory, key, value):
    return stored(memory, tf.constant(unit(np.array(key, np.float32))), tf.constant(value))

  memory = store(memory, [[1, 0]], one)  # empty: the first place
  np.testing.assert_allclose(memory["ages"], [[0, 1, 1]])
  memory = store(memory, [[3, 4]], one)  # right: the key moves to the middle of (1, 0) and (.6, .8)
  np.testing.assert_allclose(memory["keys"][0, 0], unit(np.array([1.6, 0.8])), rtol=1e-6)
  np.testing.assert_allclose(memory["ages"], [[0, 2, 2]])
  memory = store(memory, [[1, 1]], two)  # wrong: a place of its own
  memory = store(memory, [[-1, 0]], one)  # wrong: the nearest, (1, 1), is of class two
  np.testing.assert_allclose(memory["keys"][0, 2], [-1, 0], atol=1e-6)
  np.testing.assert_allclose(memory["ages"], [[2, 1, 0]])
  memory = store(memory, [[0, -1]], two)  # wrong: the nearest is of class one, and the first place is the oldest
  np.testing.assert_allclose(memory["values"][0], [[0, 1], [0, 1], [1, 0]])
  np.testing.assert_allclose(memory["keys"][0, 0], [0, -1], atol=1e-6)


def test_the_nearest_key_decides_and_the_margin_is_to_the_nearest_wrong_one():
  keys, queries, values = unit(normal(2, 4, 3)), unit(normal(2, 5, 3, seed=1)), np.eye(3)[[[0, 1, 1, 2], [2, 2, 0, 0]]]
  cosines = nearest(tf.constant(queries), {"keys": tf.constant(keys), "values": tf.constant(values)}).numpy()
  labels = np.array([[0, 1, 2, 1, 0], [2, 0, 0, 2, 1]])
  loss = margin_loss(tf.constant(cosines), labels, 0.1).numpy()
  for task in range(2):
    classes = values[task].argmax(-1)
    for query in range(5):
      all_cosines = keys[task] @ queries[task, query]
      assert cosines[task, query].argmax() == classes[all_cosines.argmax()]
      right = classes == labels[task, query]
      expected = max(0, all_cosines[~right].max() - all_cosines[right].max() + 0.1) if right.any() else 0
      np.testing.assert_allclose(loss[task, query], expected, rtol=1e-9, atol=1e-12)


def test_masked_examples_are_not_stored():
  algorithm = Memory(clusters.bare(), memory_slots=6)
  features, labels, mask = normal(1, 4, 3), np.array([[0, 1, 1, 0]]), np.array([[True, False, True, True]])
  masked = algorithm.learn({}, tf.constant(features), tf.constant(labels), tf.constant(mask))
  kept = algorithm.learn({}, tf.constant(features[:, mask[0]]), tf.constant(labels[:, mask[0]]), None)
  for name in masked:
    np.testing.assert_allclose(masked[name], kept[name], rtol=1e-9)


# Both -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "iterations"), [("mann", 1000), ("memory", 150)])
def test_it_learns_resumes_and_exports_the_four_functions(tmp_path, name, iterations):
  who = clusters.learner(MADE[name](clusters.network()))
  state = clusters.trained(who, iterations, tmp_path / "run")
  assert clusters.accuracy(who, state) > 0.4  # chance: 0.2
  clusters.check_artefact(who, state, tmp_path / "model")


@pytest.mark.parametrize("name", MADE)
def test_the_experiments_make_it_and_refuse_what_it_lacks(name):
  _, answers = clusters.from_command_line("omniglot", name, memory_slots=5)
  assert answers.shape == (1, 3, 5) and np.isfinite(answers).all()
  for given in ({"num_updates": 2}, {"eval_updates": 3}, {"bn_mode": "running"}, {"temporal_blocks": 2}):
    with pytest.raises(UserError, match=f"^--{next(iter(given))}="):
      resolve("omniglot", learner=name, **given)

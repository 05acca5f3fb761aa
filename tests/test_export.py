"""The SavedModel: used without this package, it adapts exactly as gradient descent written in NumPy does."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import MAML, export, models, randomness, tasks, tracing
from maml_tf.errors import UserError
from maml_tf.maml import LearnedStepSizes
from maml_tf.training.learner import SupervisedLearner

RATE = 0.02


def make_learner(inner_lr=RATE, **kwargs):
  maml = MAML(models.MLP(**kwargs), inner_lr=inner_lr)
  return SupervisedLearner(maml, tasks.Sinusoid(10, 10), metadata={"config": {"datasource": "sinusoid"}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(learner, state after some training, path of its SavedModel)."""
  learner = make_learner()
  state = learner.initial_state(0)
  step = tracing.function(learner.train_step)
  for i in range(60):
    state, _ = step(state, randomness.fold(randomness.make_seed(0), i))
  path = tmp_path_factory.mktemp("run") / "saved_model"
  export.save(learner, state, path)
  return learner, state, path


# Runs in a process that cannot import this package or Keras: the artefact needs TensorFlow and NumPy alone.
CLIENT = """
import sys
sys.modules["maml_tf"] = None
import numpy as np
import tensorflow as tf

def forward(weights, x):
  hidden_1 = np.maximum(x @ weights["dense_0/kernel"] + weights["dense_0/bias"], 0)
  hidden_2 = np.maximum(hidden_1 @ weights["dense_1/kernel"] + weights["dense_1/bias"], 0)
  return hidden_1, hidden_2, hidden_2 @ weights["dense_2/kernel"] + weights["dense_2/bias"]

def descend(weights, x, y, rate, steps):
  for _ in range(steps):
    hidden_1, hidden_2, out = forward(weights, x)
    d_out = 2 * (out - y) / y.size
    d_2 = (d_out @ weights["dense_2/kernel"].T) * (hidden_2 > 0)
    d_1 = (d_2 @ weights["dense_1/kernel"].T) * (hidden_1 > 0)
    gradients = {}
    for layer, (inputs, delta) in enumerate([(x, d_1), (hidden_1, d_2), (hidden_2, d_out)]):
      gradients[f"dense_{layer}/kernel"] = inputs.T @ delta
      gradients[f"dense_{layer}/bias"] = delta.sum(axis=0)
    weights = {name: w - rate * gradients[name] for name, w in weights.items()}
  return weights

m = tf.saved_model.load(sys.argv[1])
rate = float(sys.argv[2])
start = {name: value.numpy().astype(np.float64) for name, value in m.initialization().items()}
rng = np.random.default_rng(0)
for points, steps in [(5, 0), (5, 1), (10, 5), (20, 10), (3, 10)]:
  amplitude, phase = rng.uniform(0.1, 5), rng.uniform(0, np.pi)
  x, query = rng.uniform(-5, 5, size=(points, 1)), rng.uniform(-5, 5, size=(50, 1))
  y = amplitude * np.sin(x - phase)
  adapted = descend(start, x, y, rate, steps)
  expected = forward(adapted, query)[2]
  for count in (steps, tf.constant(steps), np.int64(steps), tf.constant(steps, tf.int64)):
    got = m.adapt_and_predict(np.float32(x), np.float32(y), np.float32(query), count).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
  weights = m.adapt(support_x=tf.constant(x, tf.float32), support_y=tf.constant(y, tf.float32), num_updates=steps)
  for name, value in adapted.items():
    np.testing.assert_allclose(weights[name], value, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(m.predict(weights, tf.constant(query, tf.float32)), expected, rtol=1e-5, atol=1e-5)
signature = m.signatures["adapt_and_predict"]
out = signature(support_x=tf.constant(x, tf.float32), support_y=tf.constant(y, tf.float32),
                query_x=tf.constant(query, tf.float32), num_updates=tf.constant(steps))
np.testing.assert_allclose(out["outputs"], expected, rtol=1e-5, atol=1e-5)
print("all equal")
"""


def test_adapts_as_numpy_does_without_this_package(trained, tmp_path):
  script = tmp_path / "client.py"
  script.write_text(textwrap.dedent(CLIENT))
  done = subprocess.run(
    [sys.executable, str(script), str(trained[2]), str(RATE)], capture_output=True, text=True, timeout=300, cwd=tmp_path
  )
  assert done.stdout.strip() == "all equal", done.stderr[-2000:]


def test_signature_is_that_of_the_documented_request(trained):
  """docs/predicting.md has the request for TensorFlow Serving; names, dtypes and sizes by TensorFlow's tool."""
  tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", str(trained[2])]
  done = subprocess.run(
    [*tool, "--tag_set", "serve", "--signature_def", "adapt_and_predict"], capture_output=True, text=True, timeout=300
  )
  listed = re.findall(r"(inputs|outputs)\['(\w+)'\] tensor_info:\s+dtype: (\w+)\s+shape: (.*)", done.stdout)
  assert {(kind, name): rest for kind, name, *rest in listed} == {
    ("inputs", "support_x"): ["DT_FLOAT", "(-1, 1)"],
    ("inputs", "support_y"): ["DT_FLOAT", "(-1, 1)"],
    ("inputs", "query_x"): ["DT_FLOAT", "(-1, 1)"],
    ("inputs", "num_updates"): ["DT_INT32", "()"],
    ("outputs", "outputs"): ["DT_FLOAT", "(-1, 1)"],
  }, done.stderr[-2000:]


def test_initialization_round_trip(trained):
  learner, state, path = trained
  weights, metadata = export.load_initialization(path, learner.algorithm.model.weight_shapes)
  assert list(weights) == list(state["weights"])
  for name, value in weights.items():
    np.testing.assert_array_equal(value, state["weights"][name])
  assert metadata["format_version"] == export.FORMAT_VERSION
  assert metadata["config"] == {"datasource": "sinusoid"}


def test_another_architecture_is_refused_and_named(trained):
  shapes = models.MLP(hidden=(40, 41)).weight_shapes
  with pytest.raises(
    UserError, match=r"another architecture: dense_1/kernel is \(40, 40\), this model needs \(40, 41\)"
  ):
    export.load_initialization(trained[2], shapes)
  with pytest.raises(UserError, match="has no weight dense_3/kernel"):
    export.load_initialization(trained[2], models.MLP(hidden=(40, 40, 1)).weight_shapes | {"dense_2/kernel": (40, 1)}
                               | {"dense_2/bias": (1,)})  # fmt: skip
  with pytest.raises(UserError, match="it has a weight dense_2/kernel, which this model lacks"):
    shapes = models.MLP().weight_shapes
    export.load_initialization(trained[2], {n: s for n, s in shapes.items() if not n.startswith("dense_2")})


def test_what_is_no_saved_model_of_ours_is_refused(tmp_path):
  with pytest.raises(UserError, match="no SavedModel here"):
    export.load_initialization(tmp_path)
  tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
  with pytest.raises(UserError, match="not a SavedModel that maml_tf exported"):
    export.load_initialization(tmp_path / "foreign")


def swap_two_weights(path):
  """What a disk or a copy never does, but a program may: files that are sound, with other weights."""
  other = make_learner()
  export.save(other, other.initial_state(7), path.with_name("other"))
  for file in (path / "variables").iterdir():
    shutil.copyfile(path.with_name("other") / "variables" / file.name, file)


def flip_a_bit(name):
  def flip(path):
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)

  return flip


def put_a_pipe(path):
  (path / "variables" / "variables.index").unlink()
  os.mkfifo(path / "variables" / "variables.index")


@pytest.mark.parametrize(("damage", "message"), [
  (swap_two_weights, "variables/variables.data-00000-of-00001 is not what was written"),
  (flip_a_bit("saved_model.pb"), "saved_model.pb is not what was written"),
  (flip_a_bit("variables/variables.data-00000-of-00001"), "variables.data-00000-of-00001 is not what was written"),
  (flip_a_bit("variables/variables.index"), "variables/variables.index is not what was written"),
  (flip_a_bit("checksums.json"), ""),
  (put_a_pipe, "variables/variables.index cannot be read (not a regular file)"),
  (lambda path: (path / "checksums.json").write_text(""), "checksums.json cannot be read ("),
], ids=["other weights", "bit of the graph", "bit of the weights", "bit of the index", "bit of checksums", "pipe",
        "no checksums"])  # fmt: skip
def test_a_damaged_saved_model_is_refused(trained, tmp_path, damage, message):
  path = shutil.copytree(trained[2], tmp_path / "copy")
  export.load_initialization(path)
  damage(path)
  with pytest.raises(UserError, match=f"^{re.escape(f'{path}: this SavedModel is damaged: ')}.*{re.escape(message)}"):
    export.load_initialization(path)


def test_an_export_from_before_there_were_checksums_is_read(trained, tmp_path):
  path = shutil.copytree(trained[2], tmp_path / "copy")
  (path / "checksums.json").unlink()
  weights, _ = export.load_initialization(path)
  np.testing.assert_array_equal(weights["dense_0/kernel"], trained[1]["weights"]["dense_0/kernel"])
  put_a_pipe(path)
  with pytest.raises(UserError, match=r"damaged: variables/variables\.index cannot be read \(not a regular file\)"):
    export.load_initialization(path)


def test_learned_step_sizes_travel(tmp_path):
  learner = make_learner(LearnedStepSizes(0.01, "element"))
  state = learner.initial_state(0)
  state["weights"] = {n: w * 1.5 if n.startswith("inner_lr/") else w for n, w in state["weights"].items()}
  export.save(learner, state, tmp_path / "m")
  module = tf.saved_model.load(str(tmp_path / "m"))
  batch = tasks.Sinusoid(10, 10).sample(randomness.make_seed(0), 1)
  got = module.adapt(batch.support_x[0], batch.support_y[0], 2)
  expected = make_learner(0.015).algorithm.adapt_final(state["weights"], batch.support_x, batch.support_y, 2)
  np.testing.assert_allclose(got["dense_1/kernel"], expected["dense_1/kernel"][0], rtol=1e-5, atol=1e-7)
  assert "inner_lr/dense_0/kernel" in module.initialization()
  x = batch.query_x[0]
  np.testing.assert_allclose(
    module.predict(module.initialization(), x), learner.algorithm.model.apply(state["weights"], x)
  )
  weights, _ = export.load_initialization(tmp_path / "m", learner.algorithm.model.weight_shapes)
  assert "inner_lr/dense_0/kernel" not in weights


def test_weights_stored_as_float16_take_half_the_space_and_compute_in_float32(trained, tmp_path):
  learner, state, path = trained
  halved = make_learner()
  halved.stored_dtype = tf.float16
  export.save(halved, state, tmp_path / "m")
  size, half = ((p / "variables" / "variables.data-00000-of-00001").stat().st_size for p in (path, tmp_path / "m"))
  assert half < 0.6 * size
  loaded, _ = export.load_initialization(tmp_path / "m", learner.algorithm.model.weight_shapes)
  for name, value in state["weights"].items():
    np.testing.assert_array_equal(loaded[name], value.numpy().astype(np.float16).astype(np.float32))
  batch = tasks.Sinusoid(10, 10).sample(randomness.make_seed(0), 1)
  support = batch.support_x, batch.support_y
  module = tf.saved_model.load(str(tmp_path / "m"))
  got = module.adapt(*(s[0] for s in support), 3)
  expected = learner.algorithm.adapt_final(loaded, *support, 3)
  np.testing.assert_allclose(got["dense_1/kernel"], expected["dense_1/kernel"][0], rtol=1e-5, atol=1e-7)


def test_saving_again_replaces_and_leaves_nothing_else(trained, tmp_path):
  learner, state, _ = trained
  path = tmp_path / "saved_model"
  for scale in (1.0, 2.0):
    weights = {n: w * scale for n, w in state["weights"].items()}
    export.save(learner, {**state, "weights": weights}, path)
  assert [entry.name for entry in tmp_path.iterdir()] == ["saved_model"]
  loaded, _ = export.load_initialization(path)
  np.testing.assert_array_equal(loaded["dense_1/kernel"], 2 * state["weights"]["dense_1/kernel"])


@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_classifier_takes_labels_of_both_usual_widths(tmp_path, width):
  class Blobs(tasks.TaskDistribution):
    def sample(self, seed, num_tasks):
      x = randomness.uniform(seed, [num_tasks, 6, 8, 8, 1], 0.0, 1.0, tf.float32)
      y = tf.tile([[0, 1, 2, 0, 1, 2]], [num_tasks, 1])
      return tasks.TaskBatch(x, y, x, y)

  maml = MAML(models.ConvNet(3, filters=4, input_shape=(8, 8, 1)), "crossentropy", inner_lr=[0.1, 0.05])
  learner = SupervisedLearner(maml, Blobs())
  state = learner.initial_state(0)
  export.save(learner, state, tmp_path / "m")
  module = tf.saved_model.load(str(tmp_path / "m"))
  batch = Blobs().sample(randomness.make_seed(0), 1)
  x, y = batch.support_x, tf.cast(batch.support_y, width)
  adapted = maml.adapt_final(state["weights"], x, y, 3)
  expected = maml.model.apply(adapted, x)[0]
  np.testing.assert_allclose(module.adapt_and_predict(x[0], y[0], x[0], 3), expected, rtol=1e-4, atol=1e-4)


def test_a_learner_may_export_any_module(tmp_path):
  class Constant(tf.Module):
    @tf.function(input_signature=[])
    def value(self):
      return tf.constant(3.0)

  class Own:
    def export_module(self, state):
      return Constant()

  export.save(Own(), {}, tmp_path / "m")
  assert tf.saved_model.load(str(tmp_path / "m")).value() == 3.0

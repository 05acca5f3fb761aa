"""Prototypical networks against NumPy, and as a method of the experiments."""

import numpy as np
import pytest
import tensorflow as tf
from meta_batches import image_batch

from maml_tf import export, models, tasks
from maml_tf.algorithms.prototypical import Prototypical, negative_distances, prototypes
from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve
from maml_tf.training.learner import SupervisedLearner


def embedding(norm="batch_norm"):
  return models.ConvNet(3, filters=4, input_shape=(16, 16, 1), norm=norm, head=False)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def test_prototypes_are_class_means_and_distances_are_euclidean():
  features, queries = normal(2, 6, 5), normal(2, 4, 5, seed=1)
  labels = np.array([[0, 1, 2, 0, 1, 2], [2, 2, 1, 0, 0, 0]])
  centres = prototypes(tf.constant(features), tf.constant(labels))
  logits = negative_distances(tf.constant(queries), centres)
  for t in range(2):
    means = np.stack([features[t][labels[t] == c].mean(axis=0) for c in range(3)])
    np.testing.assert_allclose(centres[t], means, rtol=1e-12)
    distances = ((queries[t][:, None] - means[None]) ** 2).sum(-1)
    np.testing.assert_allclose(logits[t], -distances, rtol=1e-10)
    # Snell et al. 2017, section 2.4: a linear classifier with weights 2 c and bias -|c|^2.
    linear = queries[t] @ (2 * means.T) - (means**2).sum(-1)
    softmax = [np.exp(x - x.max(-1, keepdims=True)) for x in (linear, logits[t].numpy())]
    np.testing.assert_allclose(*(x / x.sum(-1, keepdims=True) for x in softmax), rtol=1e-10)


def test_masked_examples_count_nothing():
  features, labels = normal(1, 5, 3), np.array([[0, 1, 0, 1, 1]])
  mask = np.array([[True, True, True, False, True]])
  masked = prototypes(tf.constant(features), tf.constant(labels), tf.constant(mask))
  kept = prototypes(tf.constant(features[:, mask[0]]), tf.constant(labels[:, mask[0]]))
  np.testing.assert_allclose(masked, kept, rtol=1e-12)


@pytest.mark.parametrize("bn_mode", ["transductive", "support"])
def test_evaluation_equals_adapting_and_predicting(float64, bn_mode):
  algorithm, batch = Prototypical(embedding(), bn_mode=bn_mode), image_batch(num_tasks=3)
  weights = algorithm.initial_weights(0)
  task = algorithm.adapt(weights, batch.support_x, batch.support_y)
  measured = algorithm.measure(algorithm.predict(task, batch.query_x), batch)
  evaluated = algorithm.evaluate(weights, batch)
  for name in ("loss", "accuracy"):
    assert evaluated[name].shape == (1, 3)
    np.testing.assert_allclose(evaluated[name][0], measured[name], rtol=1e-9)
  loss, _, updates = algorithm.meta_loss(weights, batch)
  np.testing.assert_allclose(loss, np.mean(measured["loss"]), rtol=1e-9)
  assert updates == {}


def test_support_statistics_make_predictions_independent_of_one_another(float64):
  algorithm, batch = Prototypical(embedding(), bn_mode="support"), image_batch(num_tasks=1)
  task = algorithm.adapt(algorithm.initial_weights(0), batch.support_x, batch.support_y)
  together = algorithm.predict(task, batch.query_x)
  alone = [algorithm.predict(task, batch.query_x[:, i : i + 1]) for i in range(batch.query_x.shape[1])]
  np.testing.assert_allclose(together, tf.concat(alone, 1), rtol=1e-9)


def test_it_exports_the_four_functions(tmp_path):
  class Fixed(tasks.TaskDistribution):
    def sample(self, seed, num_tasks):
      return tasks.TaskBatch(*(f if f is None else tf.cast(f[:1], t) for f, t in zip(batch, dtypes, strict=True)))

  batch = image_batch(num_tasks=2)
  dtypes = [tf.float32, tf.int32, tf.float32, tf.int32, tf.bool, tf.bool]
  algorithm = Prototypical(embedding(), bn_mode="support")
  learner = SupervisedLearner(algorithm, Fixed(), meta_batch_size=1)
  state = learner.initial_state(0)
  export.save(learner, state, tmp_path / "model")
  module = tf.saved_model.load(str(tmp_path / "model"))
  x, y, query = (tf.cast(batch[i][0], dtypes[i]) for i in range(3))
  expected = algorithm.predict(algorithm.adapt(state["weights"], x[tf.newaxis], y[tf.newaxis]), query[tf.newaxis])[0]
  np.testing.assert_allclose(module.adapt_and_predict(x, y, query, 0), expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(module.predict(module.adapt(x, y, 3), query[:1]), expected[:1], rtol=1e-4, atol=1e-5)
  assert set(module.initialization()) == set(state["weights"])


@pytest.mark.parametrize("given", [
  {"stop_grad": True}, {"update_lr": 0.1}, {"num_updates": 3}, {"eval_updates": 3}, {"checkpoint_inner_steps": True},
  {"bn_mode": "running"}, {"mixed_precision": True}, {"loss_reduction": "mean"},
], ids=str)  # fmt: skip
def test_settings_that_it_does_not_have_are_refused(given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=") as error:
    resolve("omniglot", learner="protonet", **given)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("datasource", ["sinusoid", "point"])
def test_it_is_refused_where_there_are_no_classes(datasource):
  with pytest.raises(UserError, match=r"^--learner=protonet: expected"):
    resolve(datasource, learner="protonet")


def test_another_loss_is_refused():
  with pytest.raises(UserError, match="loss=mse"):
    Prototypical(embedding(), "mse")

"""Losses and reductions against hand-computed values."""

import numpy as np
import tensorflow as tf

from maml_tf import losses

LOGITS = np.array([[[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]]], np.float32)  # [1, 2, 3]


def test_mse_averages_output_dimensions():
  labels, outputs = tf.constant([[[0.0, 0.0], [1.0, 1.0]]]), tf.constant([[[1.0, 3.0], [1.0, 2.0]]])
  np.testing.assert_allclose(losses.mse(labels, outputs), [[5.0, 0.5]])


def test_crossentropy_is_minus_the_log_probability_of_the_label():
  probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
  expected = -np.log([[probabilities[0, 0, 1], probabilities[0, 1, 2]]])
  np.testing.assert_allclose(losses.crossentropy(tf.constant([[1, 2]]), tf.constant(LOGITS)), expected, rtol=1e-6)
  soft = tf.constant([[[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]])
  expected = -(soft.numpy() * np.log(probabilities)).sum(-1)
  np.testing.assert_allclose(losses.crossentropy(soft, tf.constant(LOGITS)), expected, rtol=1e-6)


def test_accuracy_with_a_mask():
  labels = tf.constant([[0, 2]])
  assert losses.accuracy(labels, tf.constant(LOGITS)).numpy() == [0.5]
  assert losses.accuracy(labels, tf.constant(LOGITS), tf.constant([[True, False]])).numpy() == [1.0]


def test_reductions():
  per_example = tf.constant([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 4.0]])
  mask = tf.constant([[True, True, True, False], [True, True, False, False]])
  np.testing.assert_allclose(losses.per_task(per_example), [3.0, 1.0])
  np.testing.assert_allclose(losses.per_task(per_example, mask), [2.0, 0.0])
  np.testing.assert_allclose(losses.per_task(per_example, shots=2), [6.0, 2.0])
  np.testing.assert_allclose(losses.per_task(per_example, mask, shots=2), [3.0, 0.0])
  np.testing.assert_allclose(losses.per_task(tf.ones([2, 3, 5])), [1.0, 1.0])


def test_a_label_that_is_no_class_is_not_free_unless_it_is_masked():
  labels, outputs = tf.constant([[1, 3]]), tf.constant(LOGITS)
  with tf.GradientTape() as tape:
    tape.watch(outputs)
    per_example = losses.crossentropy(labels, outputs)
    masked = losses.per_task(per_example, tf.constant([[True, False]]))
  assert np.isfinite(per_example[0, 0]) and np.isnan(per_example[0, 1])
  assert np.isnan(losses.crossentropy(tf.constant([[-1, 0]]), outputs)[0, 0])
  np.testing.assert_allclose(masked, per_example[:, 0])
  gradient = tape.gradient(masked, outputs)
  assert np.isfinite(gradient).all() and not np.any(gradient[0, 1])

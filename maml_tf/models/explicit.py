"""The base class: a Keras model whose forward pass is also a pure function of its weights."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from maml_tf import randomness
from maml_tf.models import layers, shapes


@dataclasses.dataclass(frozen=True)
class WeightSpec:
  """One weight: its plain shape (no task axis), its initialiser, and whether the inner loop changes it."""

  shape: tuple
  initializer: Callable
  adapted: bool = True


class ExplicitModel(keras.Model):
  """A Keras model that also computes with explicit weights, shared or one set per task.

  A subclass passes its weights to `__init__` and implements `forward`. Everything else follows.

  Args:
    input_shape: shape of one example, without batch or task axes.
    specs: dict of weight name -> `WeightSpec`, in layer order.

  Attributes:
    fixed_variables: variables that no training changes, which an exported artefact has to carry.
    num_outputs: of the head that it has or, made without one, would have; None: it does not say.
    has_statistics: whether it normalises by statistics of a batch, so that examples depend on one another.
    twice_differentiable: whether every operation is known to have a second derivative; False: it is looked for.
    layer_kinds: dict of layer name, as in the name scopes of a graph, -> name of its class; for errors.
    stopped_gradients: "refuse" or "keep", as of `from_keras`.
    is_large: whether tasks are better computed one after the other, by what is traced once.
    loops_over_steps: the same of inner steps.
  """

  fixed_variables = ()
  num_outputs = None
  has_statistics = False
  twice_differentiable = False
  layer_kinds: ClassVar = {}
  stopped_gradients = "refuse"
  is_large = loops_over_steps = False

  def __init__(self, input_shape, specs, name=None):
    super().__init__(name=name)
    self.example_shape = tuple(input_shape)
    self._specs = specs
    self._variables = {
      name: self.add_weight(name=name.replace("/", "_"), shape=spec.shape, initializer=spec.initializer)
      for name, spec in specs.items()
    }
    self.built = True

  @property
  def weight_shapes(self) -> dict[str, tuple]:
    """Dict of weight name -> plain shape, in layer order."""
    return {name: tuple(spec.shape) for name, spec in self._specs.items()}

  @property
  def adapted_names(self) -> list[str]:
    """Names of the weights that the inner loop changes, in layer order."""
    return [name for name, spec in self._specs.items() if spec.adapted]

  @property
  def head_names(self):
    """Names of the last layer's weights: the linear classifier, or what a regression ends with."""
    layer = self.adapted_names[-1].rpartition("/")[0]
    return [name for name in self.adapted_names if name.rpartition("/")[0] == layer]

  def initial_weights(self, seed: int | None = 0) -> dict[str, tf.Tensor]:
    """Fresh weights of a Python integer seed, in `keras.config.floatx()`; seed=None: the model's current values.

    Returns:
      Dict of name -> tensor, every meta-parameter, in layer order.
    """
    if seed is None:
      return {name: tf.convert_to_tensor(v.value) for name, v in self._variables.items()}
    return {
      name: initialise(spec.initializer, spec.shape, keras.config.floatx(), seed, name)
      for name, spec in self._specs.items()
    }

  def apply(self, weights: dict, x: Any, statistics: dict | None = None) -> Any:
    """The forward pass as a pure function.

    Args:
      weights: dict like `initial_weights`; each tensor plain (shared) or with a leading task axis T. Other
        names are ignored.
      x: [n, ...] with plain weights, or [T, n, ...]. Cast to the dtype of the weights.
      statistics: None, or normalisation statistics as `apply_with_statistics` returns them, to be used instead of
        this batch's own.

    Returns:
      Outputs [n, ...] or [T, n, ...] in the dtype of the weights; logits for classifiers.
    """
    return self.apply_with_penalty(weights, x, statistics)[0]

  def apply_with_statistics(self, weights: dict, x: Any) -> tuple[Any, dict[str, tf.Tensor]]:
    """As `apply`; returns (outputs, statistics), the normalisation statistics of this batch."""
    return self.apply_with_penalty(weights, x)[:2]

  def apply_with_penalty(self, weights, x, statistics=None):
    """As `apply`; returns (outputs, statistics used, penalty).

    The penalty is what the model adds to its loss by itself, regularisers and the like: a scalar, [T] for inputs with a
    task axis, or None where it adds nothing.
    """
    return *self._apply(weights, x, statistics), None

  def starting_weights(self, seed):
    """What training begins from: fresh weights of a seed."""
    return self.initial_weights(seed)

  def parts(self, changed):
    """The forward pass in two, where that saves something: (body, rest), or None.

    The body has no weight that changes from step to step, so that it is computed once for all steps; the rest makes of
    what the body gives what the model makes of its inputs. Both have the members of a model that adapting needs.

    Args:
      changed: names of the weights that change.
    """
    del changed

  def to_keras(self, weights: dict, statistics: dict | None = None) -> keras.Model:
    """Puts plain weights into this model's own variables; returns the model."""
    weights = {name: tf.convert_to_tensor(weights[name]) for name in self._specs}
    self._check_plain(weights)
    for name, variable in self._variables.items():
      variable.assign(weights[name])
    return self

  def forward(self, weights, x, normalise):
    """The network itself. Subclasses implement it.

    Args:
      weights: dict of name -> tensor, plain or with a leading T.
      x: [T, n, ...].
      normalise: function (name, x, beta, bias=None, pool=None) -> x, `layers.batch_norm` that keeps the books on
        statistics.

    Returns:
      [T, n, ...].
    """
    raise NotImplementedError(f"{type(self).__name__} must implement forward(weights, x, normalise)")

  def call(self, inputs):
    return self.apply(self.initial_weights(seed=None), inputs)

  def _apply(self, weights, x, statistics):
    weights = {name: tf.convert_to_tensor(weights[name]) for name in self._specs}
    dtype = next(iter(weights.values())).dtype
    x = tf.cast(tf.convert_to_tensor(x), dtype)
    has_tasks = self._check_rank(x)
    if not has_tasks:
      self._check_plain(weights)
    used = {}

    def normalise(name, x, beta, bias=None, pool=None):
      given = statistics and (statistics[f"{name}/mean"], statistics[f"{name}/variance"])
      # Half precision has too few digits for a variance.
      wide = tf.float32 if x.dtype.size < 4 else x.dtype
      out, (used[f"{name}/mean"], used[f"{name}/variance"]) = layers.batch_norm(
        tf.cast(x, wide), tf.cast(beta, wide), given, None if bias is None else tf.cast(bias, wide), pool
      )
      return tf.cast(out, x.dtype)

    outputs = self.forward(weights, x if has_tasks else x[tf.newaxis], normalise)
    if has_tasks:
      return outputs, used
    return outputs[0], {name: value[0] if value.shape.rank == 2 else value for name, value in used.items()}

  def _check_plain(self, weights):
    """An error where a weight has a task axis beside an input that has none: which task's answer would it be?"""
    for name, shape in self.weight_shapes.items():
      if weights[name].shape.rank != len(shape):
        raise ValueError(
          f"{self.name}: weight {name} has shape {tuple(weights[name].shape)}, a set for each task, but the "
          "inputs have no task axis; give them one, [T, n, ...], or pick one task's weights"
        )

  def _check_rank(self, x):
    """Whether x has a task axis; an error with the received shape where it fits neither form."""
    return shapes.task_axis(self.name, x, self.example_shape)


def initialise(initializer, shape, dtype, seed, name):
  """Values of a Keras initialiser for one weight, from a seed of its own derived from the run's seed and its name."""
  return initializer_with_seed(initializer, seed, name)(tuple(shape), dtype=dtype)


def initializer_with_seed(initializer, seed, name):
  """A copy of a Keras initialiser whose seed depends on (seed, name) alone; one without randomness is unchanged."""
  config = initializer.get_config()
  if "seed" not in config:
    return initializer
  return type(initializer).from_config(config | {"seed": randomness.name_to_int(f"{seed}/{name}")})

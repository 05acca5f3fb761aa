"""A Keras layer as a pure function of named weights: the recurrent parts of learners that read their support sets."""

import functools

import keras
import tensorflow as tf

from maml_tf.models import keras_tree


class KerasPart:
  """A Keras layer, whose variables become weights `NAME/...`; its own values are never read.

  It keeps no state, so that it can be called with other weights in every graph. Layers with dropout are not for it.

  Args:
    name: what the names of its weights begin with; the values drawn from a seed depend on it.
    kind: class of the layer.
    shape: of its input, with the axis of examples.
    **options: of the layer.

  Attributes:
    layer: the layer; parts that are made alike share one.
  """

  def __init__(self, name, kind, shape, **options):
    self.layer = _built(kind, tuple(shape), keras.config.floatx(), tuple(options.items()))
    self._named = {f"{name}/{path}": owned for path, owned in keras_tree.named_variables(self.layer).items()}
    self._names = {id(owned.variable): full for full, owned in self._named.items()}

  def initial_weights(self, seed):
    """Values as the layer's own initialisers draw them, from seeds of their own: dict of name -> tensor."""
    fresh, names = {}, [self._names[id(v)] for v in self.layer.trainable_variables]
    for name in names:
      if name not in fresh:
        fresh |= keras_tree.rebuilt(self._named, self._named[name].layer, seed)
    return {name: fresh[name] for name in names}

  def __call__(self, weights, *inputs, of=None, **options):
    """The layer's outputs.

    Args:
      weights: dict of name -> tensor, plain, or [T, ...] and the same for every task.
      *inputs: of the layer.
      of: a layer inside of it that has all its weights, the cell of a recurrent one; None: itself.
      **options: of the layer's call.
    """
    layer = self.layer if of is None else of
    own = [self._plain(weights, variable) for variable in layer.trainable_variables]
    others = [tf.zeros(variable.shape, variable.dtype) for variable in layer.non_trainable_variables]
    return layer.stateless_call(own, others, *inputs, **options)[0]

  def _plain(self, weights, variable):
    weight = weights[self._names[id(variable)]]
    return weight if weight.shape.rank == len(variable.shape) else weight[0]


# An algorithm may be made anew while a function is traced, which must not create variables.
@functools.lru_cache(maxsize=64)
def _built(kind, shape, dtype, options):
  layer = kind(**dict(options), dtype=dtype)
  layer.build(shape)
  return layer

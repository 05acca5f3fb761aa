"""The forward pass of a Keras model, or of a part of one, as a function of weights by name."""

import contextlib

import tensorflow as tf

from maml_tf.models import exact, keras_tree
from maml_tf.models.task_map import TaskMap

# A network with more variables than this is traced for minutes where it is vectorised over tasks.
MOST_VECTORISED = 60


class Forward:
  """A Keras network through `stateless_call`, for one task or for all.

  Args:
    network: a Keras model.
    names: dict of the id of a variable -> its name, of trainable ones at least.
    moving: dict of name of a statistic -> the moving variable of batch normalisation that stands for it; those that the
      network does not have are left out.
    twice: whether it may be differentiated twice.

  Attributes:
    names: of the trainable variables, in the order of the network.
    is_large: whether tasks are computed one after the other, by what is traced once.
  """

  def __init__(self, network, names, moving, twice=True):
    self.network, self._twice = network, twice
    self.names = [names[id(variable)] for variable in network.trainable_variables]
    own = {id(variable) for variable in network.variables}
    self._moving = {key: id(variable) for key, variable in moving.items() if id(variable) in own}
    self.is_large = len(network.variables) > MOST_VECTORISED
    self._over_tasks = TaskMap(bool(keras_tree.lookup_tables(network)), self.is_large)

  @property
  def has_statistics(self):
    return bool(self._moving)

  def one_task(self, weights, x, statistics):
    """(outputs, statistics used, penalty or None) at x [n, ...]."""
    return _in_order(self._call(weights, x, statistics))

  def all_tasks(self, weights, ranks, x, statistics):
    """As `one_task`, at x [T, n, ...].

    Args:
      weights: dict of name -> tensor, plain or with a leading T.
      ranks: dict of name -> rank of the plain weight.
      x: nested tensors.
      statistics: dict of name -> [channels], or [T, channels]; empty: the batch's own are used.
    """
    # `tf.map_fn` wants every element to have the task axis; what is shared stays outside, in the closure.
    own_weights = {n: w for n, w in weights.items() if w.shape.rank > ranks[n]}
    own_statistics = {n: s for n, s in statistics.items() if s.shape.rank == 2}

    def one_task(elements):
      own_weights, own_statistics, x = elements
      return self._call(weights | own_weights, x, statistics | own_statistics)

    elements = own_weights, own_statistics, x
    return _in_order(self._over_tasks(one_task, elements, uses_statistics=bool(statistics)))

  def _call(self, weights, x, statistics):
    """{"outputs", "statistics"} and, where the model has regularisers or adds losses, {"penalty"}, their sum."""
    variables = self.network.non_trainable_variables
    given = {self._moving[key]: statistics[key] for key in self._moving} if statistics else {}
    # `stateless_call` goes past `__call__`, which would have dropped an argument that the model does not take.
    arguments = {"training": False} if keras_tree.takes(self.network.call, "training") else {}
    with exact.exact_normalisation(not statistics, self._twice), _differentiable_kernels(self.network):
      outputs, updated, added = self.network.stateless_call(
        [weights[name] for name in self.names],
        [given.get(id(v), v) for v in variables],
        x,
        return_losses=True,
        **arguments,
      )
    after = {id(v): value for v, value in zip(variables, updated, strict=True)}
    used = statistics or {key: tf.convert_to_tensor(after[variable]) for key, variable in self._moving.items()}
    dtype = next(iter(weights.values())).dtype if weights else tf.as_dtype(self.network.variable_dtype)
    outputs = tf.nest.map_structure(lambda output: _in_dtype(output, dtype), outputs)
    if len(flat := tf.nest.flatten(outputs)) == 1:
      outputs = flat[0]
    result = {"outputs": outputs, "statistics": used}
    if added:
      result["penalty"] = tf.add_n([tf.cast(tf.reduce_sum(loss), dtype) for loss in added])
    return result


@contextlib.contextmanager
def _differentiable_kernels(network):
  """Within this scope, recurrent layers do without cuDNN, whose kernels have no second derivative."""
  recurrent = [(layer, layer.use_cudnn) for _, layer in keras_tree.walk(network) if getattr(layer, "use_cudnn", False)]
  for layer, _ in recurrent:
    layer.use_cudnn = False
  try:
    yield
  finally:
    for layer, use_cudnn in recurrent:
      layer.use_cudnn = use_cudnn


def _in_order(result):
  return result["outputs"], result["statistics"], result.get("penalty")


def _in_dtype(output, dtype):
  # Under mixed precision a model may end in float16; the losses are computed in the dtype of the weights.
  return tf.cast(output, dtype) if output.dtype.is_floating else output

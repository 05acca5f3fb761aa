"""Large Keras models whose head is adapted: this package beside a plain loop over tasks, written with Keras and tapes.

The plain loop is what a user would write who knows it all: features once for all inner steps, one traced function
called for each task, gradients summed. Each contender lives in a process of its own.
"""

import dataclasses

import numpy as np

from benchmarks import images
from maml_tf.errors import UserError

OURS, PLAIN = "maml_tf", "plain loop over tasks"
NETWORKS = ("MobileNetV2", "ResNet50", "EfficientNetB0", "BERT")
SIZES = ("tasks", "queries", "size", "num_updates")
TOKENS, VOCABULARY = 64, 1000  # of BERT


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is computed.

  Attributes:
    network: of `keras.applications`, or a small BERT.
    frozen: whether the body keeps its values; else it is meta-learned, and the head adapted all the same (ANIL).
  """

  network: str
  frozen: bool
  tasks: int = 4
  ways: int = 5
  queries: int = 15
  size: int = 96
  num_updates: int = 5
  inner_lr: float = 0.01


def settings_of(networks, **sizes):
  """The settings of a measurement: each network with a frozen body and as ANIL.

  Raises:
    UserError: a network is unknown.
  """
  if not set(networks) <= set(NETWORKS):
    raise UserError(f"networks={','.join(networks)}: expected some of {', '.join(NETWORKS)}")
  given = {name: size for name, size in sizes.items() if size is not None}
  return [Setting(network, frozen, **given) for network in networks for frozen in (True, False)]


def network_of(setting):
  """A Keras model, in float32, with the same values in every process."""
  import keras

  keras.utils.set_random_seed(0)
  shape = (setting.size, setting.size, 3)
  if setting.network == "BERT":
    body, inputs = _bert(), keras.Input((TOKENS,), dtype="int32")
  else:
    kind = getattr(keras.applications, setting.network)
    body, inputs = kind(include_top=False, weights=None, pooling="avg", input_shape=shape), keras.Input(shape)
    for layer in body.layers:
      layer.momentum = 0.0  # so that a batch gives moving statistics, without which nothing would reach the end
    body(np.random.default_rng(1).random((8, *shape), np.float32), training=True)
  body.trainable = not setting.frozen
  return keras.Model(inputs, keras.layers.Dense(setting.ways, name="head")(body(inputs)))


def _bert(layers=4, width=128, heads=4):
  """BERT's encoder, small, with the mean over its tokens."""
  import keras

  ids = keras.Input((TOKENS,), dtype="int32")
  x = keras.layers.Embedding(VOCABULARY, width)(ids)
  for _ in range(layers):
    attended = keras.layers.MultiHeadAttention(heads, width // heads)(x, x)
    x = keras.layers.LayerNormalization()(keras.layers.Add()([x, attended]))
    wide = keras.layers.Dense(4 * width, "gelu")(x)
    x = keras.layers.LayerNormalization()(keras.layers.Add()([x, keras.layers.Dense(width)(wide)]))
  return keras.Model(ids, keras.layers.GlobalAveragePooling1D()(x))


def random_episodes(setting):
  """(support x, support y, query x, query y), NumPy arrays."""
  rng, arrays = np.random.default_rng(0), []
  for per_class in (1, setting.queries):
    count = setting.tasks, setting.ways * per_class
    if setting.network == "BERT":
      arrays.append(rng.integers(0, VOCABULARY, (*count, TOKENS), dtype=np.int32))
    else:
      arrays.append(rng.random((*count, setting.size, setting.size, 3), np.float32))
    arrays.append(np.tile(np.repeat(np.arange(setting.ways), per_class), (setting.tasks, 1)))
  return arrays


def our_step(setting, episodes):
  import tensorflow as tf

  from maml_tf import MAML, models, tasks, tracing
  from maml_tf.algorithms.anil import head_only

  model = models.from_keras(network_of(setting), fresh=False)
  maml = MAML(model, "crossentropy", head_only(model, setting.inner_lr), setting.num_updates)
  weights, batch = model.initial_weights(None), tasks.TaskBatch(*map(tf.constant, episodes))
  step = tracing.function(maml.meta_gradients)

  def run():
    loss, gradients = step(weights, batch)
    return loss.numpy(), {str(n): g.numpy() for n, g in enumerate(gradients.values())}

  return run


def plain_step(setting, episodes):
  import keras
  import tensorflow as tf

  network = network_of(setting)
  body, head = network.layers[1], network.layers[2]
  of_body = [variable.value for variable in body.trainable_variables]
  of_head = [variable.value for variable in head.trainable_variables]
  weights, episodes = [*of_body, *of_head], [tf.constant(array) for array in episodes]

  def features(weights, x):
    return body.stateless_call(weights, body.non_trainable_variables, x, training=True)[0]

  def loss_of(head_weights, x, y):
    logits, _ = head.stateless_call(head_weights, [], x)
    return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))

  @tf.function(autograph=False)
  def of_task(weights, support_x, support_y, query_x, query_y):
    with tf.GradientTape(watch_accessed_variables=False) as outer:
      outer.watch(weights)
      learned, adapted = weights[: len(of_body)], weights[len(of_body) :]
      support, query = features(learned, support_x), features(learned, query_x)
      for _ in range(setting.num_updates):
        with tf.GradientTape(watch_accessed_variables=False) as inner:
          inner.watch(adapted)
          loss = loss_of(adapted, support, support_y)
        found = inner.gradient(loss, adapted)
        adapted = [weight - setting.inner_lr * g for weight, g in zip(adapted, found, strict=True)]
      loss = loss_of(adapted, query, query_y)
    return loss, [tf.convert_to_tensor(g) for g in outer.gradient(loss, weights)]

  def run():
    found = [of_task(weights, *(array[task] for array in episodes)) for task in range(setting.tasks)]
    loss = np.mean([loss.numpy() for loss, _ in found])
    means = [np.mean([g.numpy() for g in each], axis=0) for each in zip(*(g for _, g in found), strict=True)]
    return loss, {str(n): mean for n, mean in enumerate(means)}

  return run


def make_step(name, setting, episodes):
  return {OURS: our_step, PLAIN: plain_step}[name](setting, episodes)


def run(asked):
  """Times both contenders in every setting of `settings_of`; returns a JSON-able dict.

  Args:
    asked: has `networks`, `rounds`, `seconds` and the sizes of a `Setting` (None: its default).

  Raises:
    UserError: a network is unknown, or they do not compute the same.
  """
  settings = settings_of(asked.networks, **{size: getattr(asked, size) for size in SIZES})
  return {"large": [_measured(setting, asked.rounds, asked.seconds) for setting in settings]}


def _measured(setting, rounds, seconds):
  # One after the other: tracing takes both cores, and the first call is timed.
  workers = [images.Worker(name, setting, random_episodes(setting), make=make_step) for name in (PLAIN, OURS)]
  images.check_same([worker.first for worker in workers], [worker.name for worker in workers])
  for _ in range(rounds):
    for worker in workers:
      worker.run(seconds)
  measured = {
    "setting": dataclasses.asdict(setting),
    "milliseconds": {worker.name: worker.milliseconds for worker in workers},
    "min_max": {worker.name: [min(worker.times), max(worker.times)] for worker in workers},
    "first_call_seconds": {worker.name: worker.first["first_call_s"] for worker in workers},
    "peak_memory_bytes": {worker.name: worker.close() for worker in workers},
  }
  print("\n".join(report(measured)), flush=True)
  return measured


def report(measured):
  """Lines of text."""
  setting = measured["setting"]
  lines = [f"{setting['network']}, {'frozen body' if setting['frozen'] else 'ANIL'}"]
  for name, milliseconds in measured["milliseconds"].items():
    first, memory = measured["first_call_seconds"][name], measured["peak_memory_bytes"][name] / 1e9
    lines.append(f"  {name:24}{milliseconds:10.0f} ms{first:10.1f} s first call{memory:8.2f} GB")
  return lines

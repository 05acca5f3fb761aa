"""Backbones of keras-hub, unedited: their meta-gradients against finite differences, in float64.

keras-hub is no part of the tests' installation; CONTRIBUTING.md has the command.
"""

import keras
import numpy as np
import pytest

from maml_tf import MAML, check_meta_gradient, models, tasks

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed (CONTRIBUTING.md)")
SIZE, LENGTH, VOCABULARY, WAYS = 16, 6, 11, 3


def text(kind, **settings):
  backbone = kind(vocabulary_size=VOCABULARY, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8,
                  max_sequence_length=LENGTH, dropout=0.0, **settings)  # fmt: skip
  shapes = {name: tensor.shape[1:] for name, tensor in backbone.input.items()}
  inputs = {name: keras.Input((LENGTH,), dtype="int32", name=name) for name in shapes}
  outputs = backbone(inputs)
  features = outputs["pooled_output"] if isinstance(outputs, dict) else outputs[:, -1]
  return keras.Model(inputs, keras.layers.Dense(WAYS, name="head")(features))


def picture(backbone):
  inputs = keras.Input((SIZE, SIZE, 3))
  features = backbone(inputs)
  features = features[:, 0] if len(features.shape) == 3 else keras.layers.GlobalAveragePooling2D()(features)
  return keras.Model(inputs, keras.layers.Dense(WAYS, name="head")(features))


BACKBONES = {
  "BERT": lambda: text(keras_hub.models.BertBackbone, num_segments=2),
  "GPT-2": lambda: text(keras_hub.models.GPT2Backbone),
  "ViT": lambda: picture(
    keras_hub.models.ViTBackbone(
      image_shape=(SIZE, SIZE, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
  ),
  "Swin": lambda: picture(
    keras_hub.models.SwinTransformerBackbone(
      image_shape=(SIZE, SIZE, 3), patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
    )
  ),
}


def batch_of(network):
  rng, arrays = np.random.default_rng(0), []
  for _ in range(2):
    if isinstance(network.input, dict):
      x = {name: rng.integers(0, VOCABULARY, (2, WAYS, LENGTH)).astype("int32") for name in network.input}
      x |= {name: np.ones_like(x[name]) for name in x if name == "padding_mask"}
      x |= {name: np.zeros_like(x[name]) for name in x if name == "segment_ids"}
    else:
      x = rng.random((2, WAYS, SIZE, SIZE, 3))
    arrays += [x, np.tile(np.arange(WAYS), (2, 1))]
  return tasks.TaskBatch(*arrays)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_meta_gradient_of_a_backbone_is_right(name):
  keras.utils.set_random_seed(0)
  network = BACKBONES[name]()
  maml = MAML(models.from_keras(network, fresh=False), "crossentropy", inner_lr=0.1, num_updates=1)
  check_meta_gradient(maml, batch_of(network), directions=1)

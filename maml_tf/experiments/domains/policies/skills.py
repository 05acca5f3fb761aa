"""The tasks that are proposed for an environment without rewards, made of a config."""

import pathlib

import tensorflow as tf

from maml_tf.rl.skills.diayn import DIAYN
from maml_tf.rl.skills.rewards import Discriminator, ProposedTasks
from maml_tf.unsupervised import kept

BY_DISCRIMINATOR = ("random_discriminator", "diayn")
FOLDER = "skills"  # of the trained discriminators, beside the run directories


def proposed(config, environment):
  """The environment with the rewards of a discriminator, which is trained first where it has to be."""
  if config.tasks == "diayn":
    discriminator, weights = _trained(config, environment)
  else:
    discriminator = Discriminator(environment.observation_dim, config.skills)
    weights = discriminator.random_weights(config.seed)
  return ProposedTasks(environment, config.skills, discriminator.reward(weights))


def _trained(config, environment):
  diayn = DIAYN(environment, config.skills)
  made_from = [config.datasource, config.horizon, config.skills, config.skill_iterations, config.seed]
  found = kept.arrays(
    pathlib.Path(config.logdir) / FOLDER,
    f"diayn-{config.datasource}",
    made_from,
    lambda folder: diayn.train(config.skill_iterations, config.seed, folder),
  )
  weights = {name: tf.constant(found[name.replace("/", ".")]) for name in diayn.discriminator.initial_weights(0)}
  return diayn.discriminator, weights

"""The settings of tasks that come without labels, or without rewards. Imports no TensorFlow."""

from maml_tf.experiments.setting import RATE_LIMIT, Setting, at_least, seed
from maml_tf.unsupervised.records import EMBEDDINGS, is_array


def _only_unlabelled(config):
  return "--tasks other than given" if config.tasks == "given" else None


def _only_partitions(config):
  return None if config.tasks in ("cactus", "random") else "--tasks=cactus or random"


def _only_embedded(config):
  return None if config.tasks == "cactus" else "--tasks=cactus"


def _only_sized(config):
  return _only_with(config, "size", "a size of its own")


def _only_wide(config):
  return _only_with(config, "width", "networks")


def _only_trained(config):
  return _only_with(config, "epochs", "a training")


def _only_with(config, name, what):
  record = EMBEDDINGS.get(config.embedding)
  there = config.tasks == "cactus" and record is not None and getattr(record, name) is not None
  return None if there else f"--tasks=cactus and an --embedding with {what}"


def _only_clustered(config):
  clusters = config.tasks == "random" or (config.tasks == "cactus" and config.partitioning == "kmeans")
  return None if clusters else "--tasks=cactus with --partitioning=kmeans, or --tasks=random"


def _only_hyperplanes(config):
  planes = config.tasks == "cactus" and config.partitioning == "hyperplanes"
  return None if planes else "--tasks=cactus with --partitioning=hyperplanes"


def _only_umtra(config):
  return None if config.tasks == "umtra" else "--tasks=umtra"


def _only_skills(config):
  skills = config.tasks in ("random_discriminator", "diayn", "carml")
  return None if skills else "--tasks=random_discriminator, diayn or carml"


def _only_diayn(config):
  return None if config.tasks == "diayn" else "--tasks=diayn"


def _not_negative(value):
  return None if 0 <= value < RATE_LIMIT else "a finite number of at least 0"


def _ways(value):
  return None if value >= 2 else "-1 (as num_classes) or a whole number of at least 2"


def _name(config):
  """Of the embedding; a file goes by its content, not by where it is (`Experiment.data_fingerprint`)."""
  return "array" if is_array(config.embedding) else config.embedding


SETTINGS = (
  Setting("tasks", "given", "whose tasks train; given: the data set's own classes, the environment's own goals", "task",
          str, of_domain=True, hashed=True, unless="given", decides=True,
          shown=(11, lambda c: None if c.tasks == "given" else c.tasks)),
  Setting("train_num_classes", -1, "classes per task in training, where they are more than --num_classes; -1: as many",
          "task", check=_ways, sentinel=-1, of_domain=True, when=_only_unlabelled),
  Setting("train_queries", 0, "query examples per class in training; 0: as the data set's recipe has it", "task",
          check=at_least(0), of_domain=True, hashed=True, unless=0),
  Setting("embedding", "pca", "what images are compared by, or a file of one's own, .npy or .npz: "
          f"{', '.join(EMBEDDINGS)}", "task", str, of_domain=True, hashed=True, decides=True, when=_only_embedded,
          read=_name,
          shown=(13, lambda c: f"{_name(c)}{c.embedding_size or ''}"), library_name="embedding"),
  Setting("embedding_size", None, "numbers that an image becomes; none: the embedding has no such setting", "task",
          check=at_least(1), optional=True, of_domain=True, hashed=True, when=_only_sized),
  Setting("embedding_width", None, "filters or units of an embedding's first layer; none: it has no such setting",
          "task", check=at_least(1), optional=True, of_domain=True, hashed=True, when=_only_wide),
  Setting("embedding_epochs", None, "epochs of its training; none: it is not trained", "task", check=at_least(1),
          optional=True, of_domain=True, hashed=True, when=_only_trained),
  Setting("embedding_seed", 0, "seed of its training", "task", check=seed, of_domain=True, hashed=True,
          when=_only_trained),
  Setting("partitioning", "kmeans", "how an embedding is divided into clusters", "task", str,
          choices=("kmeans", "hyperplanes"), of_domain=True, hashed=True, decides=True, when=_only_embedded),
  Setting("partitions", 50, "ways that the images are divided in", "task", check=at_least(1), of_domain=True,
          hashed=True, when=_only_partitions),
  Setting("clusters", 500, "clusters of a partition", "task", check=at_least(2), of_domain=True, hashed=True,
          library_name="clusters", when=_only_clustered),
  Setting("hyperplane_margin", 0.0, "images that are closer to a hyperplane are in no cluster", "task", float,
          _not_negative, of_domain=True, hashed=True, when=_only_hyperplanes),
  Setting("shift", 6, "most pixels that UMTRA's augmentation moves an image by", "task", check=at_least(0),
          of_domain=True, hashed=True, when=_only_umtra),
  Setting("skills", 20, "skills that tasks without rewards are made of", "task", check=at_least(2), of_domain=True,
          hashed=True, when=_only_skills),
  Setting("skill_iterations", 100, "iterations of DIAYN before meta-training", "task", check=at_least(1),
          of_domain=True, hashed=True, when=_only_diayn),
)  # fmt: skip

"""What does not fit is named before anything is traced or trained, from a command as from a call."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf import models, tasks
from maml_tf.algorithms.base import Algorithm
from maml_tf.algorithms.context import Context
from maml_tf.algorithms.maml import MAML
from maml_tf.algorithms.prototypical import Prototypical
from maml_tf.errors import UserError
from maml_tf.experiments import command_line
from maml_tf.losses import LabelError
from maml_tf.online import STRATEGIES, OnlineLearner, Stream, UpdateProcedure
from maml_tf.training.learner import SupervisedLearner

X = np.zeros([2, 4, 1], np.float32)
Y = np.array([[0, 1, 0, 1], [1, 0, 1, 0]])


def batch(**changed):
  return tasks.TaskBatch(X, Y, X, Y)._replace(**changed)


def classifier():
  return models.MLP(2, hidden=(4,), input_shape=(1,))


@pytest.mark.parametrize(("label", "where"), [(2, "query_y"), (-1, "query_y"), (7, "support_y")])
def test_labels_that_are_no_class_are_named_for_learners_with_logits_and_with_prototypes(label, where):
  wrong = np.where(np.eye(2, 4, dtype=bool), label, Y)
  for algorithm in (MAML(classifier(), "crossentropy"), Prototypical(models.MLP(2, (4,), (1,), head=False))):
    algorithm.check_batch(batch())
    if where == "support_y" and isinstance(algorithm, Prototypical):
      algorithm.check_batch(batch(support_y=wrong))  # of so many classes, then
      continue
    with pytest.raises(LabelError, match=rf"{where}: label {label} \(task 0, example 0\) is no class"):
      algorithm.check_batch(batch(**{where: wrong}))


def test_prototypes_are_of_integer_labels_of_one_input():
  algorithm = Prototypical(models.MLP(2, (4,), (1,), head=False))
  with pytest.raises(ValueError, match=r"support_y: it has shape \(2, 4, 2\).*expects integers"):
    algorithm.check_batch(batch(support_y=np.eye(2)[Y]))
  with pytest.raises(ValueError, match="query_x: it has several parts; Prototypical takes the features of one input"):
    algorithm.check_batch(batch(query_x={"a": X, "b": X}))
  with pytest.raises(ValueError, match="expected inputs"):
    algorithm.check_batch(batch(support_x=np.zeros([2, 4, 3]), query_x=np.zeros([2, 4, 3])))


def test_labels_that_a_mask_leaves_out_may_be_anything():
  masked = batch(support_y=np.where(np.eye(2, 4, dtype=bool), 9, Y), support_mask=~np.eye(2, 4, dtype=bool))
  MAML(classifier(), "crossentropy").check_batch(masked)
  Prototypical(models.MLP(2, (4,), (1,), head=False)).check_batch(masked)


def test_a_method_of_ones_own_has_the_check_by_default():
  with pytest.raises(ValueError, match=r"query_y: it has shape \(2, 3\), expected \[2, 4"):
    Algorithm().check_batch(batch(query_y=Y[:, :3]))


def test_a_context_vector_is_no_part_of_the_data():
  algorithm = Context(models.MLP(2, (4,), (3,)), "crossentropy", context_size=2)
  algorithm.check_batch(batch())
  with pytest.raises(LabelError, match="support_y: label 2"):
    algorithm.check_batch(batch(support_y=Y * 2))


class Wrong(tasks.Sinusoid):
  """Sine waves whose labels have lost an axis."""

  def sample(self, seed, num_tasks):
    drawn = super().sample(seed, num_tasks)
    return drawn._replace(query_y=drawn.query_y[..., 0])


def test_a_learner_checks_both_distributions():
  algorithm, right = MAML(models.MLP(1, (4,), (1,))), tasks.Sinusoid(5, 5)
  SupervisedLearner(algorithm, right).check_tasks()
  for given, name in (((Wrong(5, 5), right), "training"), ((right, Wrong(5, 5)), "validation")):
    with pytest.raises(UserError, match=rf"{name} tasks: mse: labels have shape \(1, 2\), outputs \(1, 2, 1\)"):
      SupervisedLearner(algorithm, *given).check_tasks()


def test_a_stream_names_the_task_whose_label_is_no_class():
  x, y = np.zeros([3, 8, 1], np.float32), np.zeros([3, 8], np.int32)
  y[2, 5] = 4
  procedure = UpdateProcedure(MAML(classifier(), "crossentropy"), 1)
  learner = OnlineLearner(procedure, Stream(tasks.TaskSequence(x, y, x, y * 0, 4)), STRATEGIES["ftml"], inner_batch=2)
  with pytest.raises(UserError, match=r"task 2: support_y: label 4 \(task 0, example 5\)"):
    learner.check_tasks()


def test_the_command_says_it_in_one_line_before_it_trains(monkeypatch, tmp_path, capsys):
  from maml_tf.experiments.domains.sinusoid import experiment

  monkeypatch.setattr(experiment.tasks, "Sinusoid", Wrong)
  monkeypatch.setattr(tf, "function", None)  # nothing is traced
  status = command_line.main(["main.py", f"--logdir={tmp_path}", "--metatrain_iterations=5", "--log=False"])
  err = capsys.readouterr().err
  assert status == 1 and "training tasks: mse: labels have shape" in err and err.count("\n") == 1
  assert not list(tmp_path.glob("*/checkpoints"))

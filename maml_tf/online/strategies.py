"""What tells the methods of online learning apart: which data they are trained on. Imports no TensorFlow.

How many steps they take in the inner loop and in the update procedure is up to the algorithm and the procedure.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Strategy:
  """A way to go through a stream.

  Attributes:
    adapts_in_training: whether the meta-update looks through the inner loop.
    of_current_task: whether it is trained on the data of the current task alone, rather than on the buffer.
    restarts: whether it begins anew with every task.
  """

  adapts_in_training: bool = False
  of_current_task: bool = False
  restarts: bool = False


# Finn et al. 2019, section 5. "FTL" is with fine-tuning there; TOE, train on everything, takes no steps at all. In the
# published code the line with which "from scratch" begins anew is commented out; here it does begin anew.
STRATEGIES = {
  "ftml": Strategy(adapts_in_training=True),
  "ftml_head": Strategy(adapts_in_training=True),
  "ftl": Strategy(),
  "toe": Strategy(),
  "scratch": Strategy(of_current_task=True, restarts=True),
}

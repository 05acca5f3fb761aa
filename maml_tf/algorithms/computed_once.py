"""What no inner step changes, computed once for all steps: the body of a network, where the head alone is adapted."""

import copy


def computed_once(maml, start, rates, data):
  """Splits a model where the weights that are adapted begin to matter.

  The second order stays exact: the meta-gradient goes through the features, which are constants only for the steps.

  Args:
    maml: `MAML`.
    start: dict of name -> tensor, where the inner loop starts.
    rates: dict of the step sizes by weight, or a list of such dicts: what they name is adapted.
    data: `TaskBatch`, or the inputs of a support set, [T, n, ...].

  Returns:
    (the same algorithm on the rest of the model, the same data with features for inputs); both as they are where there
    is nothing to gain, or where the parts would have to know of one another: the body's own regularisers, its
    statistics where they normalise other examples too, its gradient where the steps are computed anew.
  """
  changed = set().union(*(rates if isinstance(rates, list) else [rates]))
  parts = maml.model.parts(changed)
  if parts is None:
    return maml, data
  front, rest = (_on(maml, part) for part in parts)
  knows_more = front.model.has_statistics and maml.bn_mode != "transductive"
  if knows_more or (maml.checkpoint_inner_steps and front.model.learned):
    return maml, data
  is_batch = hasattr(data, "support_x")
  inputs = (data.support_x, data.query_x) if is_batch else (data,)
  found = [front.outputs_of(start, x) for x in inputs]
  if maml.regularisation and any(penalty is not None for _, _, penalty in found):
    return maml, data
  features = [outputs for outputs, _, _ in found]
  return rest, data._replace(support_x=features[0], query_x=features[1]) if is_batch else features[0]


def _on(maml, model):
  twin = copy.copy(maml)
  twin.model = model
  return twin

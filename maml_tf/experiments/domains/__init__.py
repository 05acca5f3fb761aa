"""The domains of the experiments, a folder each: settings, published numbers, experiment, plots."""

from maml_tf.errors import UserError
from maml_tf.experiments.domains import ambiguous, images, online, policies, sinusoid

DOMAINS = (sinusoid.DOMAIN, ambiguous.DOMAIN, images.DOMAIN, policies.DOMAIN, *online.DOMAINS)
DATASOURCES = {name: domain for domain in DOMAINS for name in domain.datasources}


def domain_of(datasource):
  """The `Domain` of a datasource.

  Raises:
    UserError: there is none.
  """
  if datasource not in DATASOURCES:
    raise UserError(f"--datasource={datasource}: expected one of {', '.join(DATASOURCES)}")
  return DATASOURCES[datasource]

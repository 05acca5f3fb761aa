"""A page in the browser on which a trained network learns, served on this machine alone: `maml-tf demo`."""

"""The paper's experiments: a config, and `run.run(config)`, which the command line and a notebook call alike."""

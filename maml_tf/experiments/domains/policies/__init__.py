"""Meta-reinforcement learning (Finn et al. 2017, section 5.3)."""

"""Tasks for an environment without a reward (Gupta, Eysenbach, Finn and Levine 2018; Jabri et al. 2019).

A task is a skill z, and its reward says how well a state tells that it is z: by a discriminator q(z|s), random or
trained (DIAYN), or by a mixture over states, one component a skill (CARML). Meta-training is that of any other tasks.
"""

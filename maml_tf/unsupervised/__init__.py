"""Tasks for meta-learning from images without labels.

Hsu, Levine and Finn 2019 (CACTUs): embed the images, divide the embedding into clusters in many ways, and have the
clusters of one partition as the classes of a task. Khodadadeh, Boloni and Shah 2019 (UMTRA): every image is a class.
"""

"""Pre-training of encoders: as timm classifiers on ImageNet, or by a teacher's features on unlabelled images.

Importing `classifiers` registers the MSCAN encoders in timm.
"""

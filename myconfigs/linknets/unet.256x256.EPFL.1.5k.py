_base_ = [
    "../_base_/models/unet.py",
    "../_base_/datasets/epfl.py",
    "../_base_/schedules/1.5k.py",
    "../_base_/runtime.py",
]
optimizer = dict(lr=2e-4)  # as published, not the 6e-4 of the others: it has no batch norm

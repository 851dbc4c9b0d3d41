_base_ = [
    "../_base_/models/unet.py",
    "../_base_/datasets/epfl.py",
    "../_base_/schedules/1.5k.py",
    "../_base_/runtime.py",
]
optimizer = dict(lr=2e-4)  # as published; without batch norm it does not bear 6e-4

_base_ = [
    "../_base_/models/unet.py",
    "../_base_/datasets/opm.py",
    "../_base_/schedules/20k.py",
    "../_base_/runtime.py",
]
optimizer = dict(lr=2e-4)

# a step is ten times the work of the others': fewer steps
_base_ = [
    "../_base_/models/dunet.py",
    "../_base_/datasets/epfl.py",
    "../_base_/schedules/0.2k.py",
    "../_base_/runtime.py",
]
model = dict(backbone=dict(init_cfg=None))
optimizer = dict(lr=2e-4)  # UNet's: neither has batch norm

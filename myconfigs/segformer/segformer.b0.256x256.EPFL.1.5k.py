_base_ = [
    "../_base_/models/segformer_b0.py",
    "../_base_/datasets/epfl.py",
    "../_base_/schedules/1.5k.py",
    "../_base_/runtime.py",
]
model = dict(backbone=dict(init_cfg=None))

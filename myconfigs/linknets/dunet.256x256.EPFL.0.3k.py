_base_ = [
    "../_base_/models/dunet.py",
    "../_base_/datasets/epfl.py",
    "../_base_/schedules/1.5k.py",
    "../_base_/runtime.py",
]
model = dict(backbone=dict(init_cfg=None))
# ten times the work of the others in a step: a fifth of the steps, on UNet's learning rate (no batch norm either)
optimizer = dict(lr=2e-4)
lr_config = dict(warmup_iters=30)
runner = dict(max_iters=300)
checkpoint_config = dict(interval=30)
evaluation = dict(interval=150)

_base_ = [
    "../_base_/models/unet_lite0.py",
    "../_base_/datasets/dubai_mines.py",
    "../_base_/schedules/1.5k.py",
    "../_base_/runtime.py",
]
optimizer = dict(lr=5e-4, paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0), head=dict(lr_mult=2.0))))
runner = dict(max_iters=4000)
evaluation = dict(interval=500)
custom_hooks = [dict(type="WeightAverageHook", momentum=5e-3)]
channels_last = True

_base_ = "./20k.py"
optimizer = dict(lr=6e-4)
lr_config = dict(warmup_iters=150, warmup_ratio=1e-4)
runner = dict(max_iters=1500)
checkpoint_config = dict(interval=150)
evaluation = dict(interval=150)

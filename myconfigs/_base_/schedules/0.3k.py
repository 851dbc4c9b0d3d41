_base_ = "./20k.py"
optimizer = dict(lr=6e-4)
lr_config = dict(warmup_iters=30, warmup_ratio=1e-4)
runner = dict(max_iters=300)
checkpoint_config = dict(interval=300)
evaluation = dict(interval=100)

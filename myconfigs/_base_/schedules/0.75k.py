_base_ = "./20k.py"
optimizer = dict(lr=6e-4)
lr_config = dict(warmup_iters=50, warmup_ratio=1e-4)
runner = dict(max_iters=750)
checkpoint_config = dict(interval=750)
evaluation = dict(interval=375)

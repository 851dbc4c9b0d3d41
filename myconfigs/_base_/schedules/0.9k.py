_base_ = "./20k.py"
optimizer = dict(lr=6e-4)
lr_config = dict(warmup_iters=50, warmup_ratio=1e-4)
runner = dict(max_iters=900)
checkpoint_config = dict(interval=900)
evaluation = dict(interval=450)

_base_ = "./1.5k.py"
lr_config = dict(warmup_iters=30)
runner = dict(max_iters=300)
checkpoint_config = dict(interval=30)
evaluation = dict(interval=150)

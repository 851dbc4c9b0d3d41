_base_ = "./1.5k.py"
lr_config = dict(warmup_iters=20)
runner = dict(max_iters=200)
checkpoint_config = dict(interval=20)
evaluation = dict(interval=100)

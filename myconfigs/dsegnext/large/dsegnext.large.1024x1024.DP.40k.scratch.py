_base_ = "./dsegnext.large.1024x1024.DP.40k.py"
model = dict(backbone=dict(init_cfg=None))
optimizer = dict(lr=6e-4)
lr_config = dict(warmup_ratio=1e-4)

_base_ = [
    "../../_base_/models/dsegnext_t.py",
    "../../_base_/datasets/synthetic_mine.py",
    "../../_base_/schedules/0.3k.py",
    "../../_base_/runtime.py",
]
model = dict(backbone=dict(init_cfg=None))
log_config = dict(interval=20)
channels_last = True

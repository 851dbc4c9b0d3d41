_base_ = [
    "../../_base_/models/dsegnext_t.py",
    "../../_base_/datasets/synthetic_mine.py",
    "../../_base_/schedules/0.75k.py",
    "../../_base_/runtime.py",
]
# a few minutes of training: roads weigh more, and nothing is dropped
losses = [dict(type="CrossEntropyLoss", class_weight=[1.0, 2.0]), dict(type="DiceLoss")]
model = dict(backbone=dict(init_cfg=None, drop_path_rate=0.0), decode_head=dict(loss_decode=losses))
log_config = dict(interval=50)
channels_last = True

_base_ = "./segnext_s.py"
model = dict(
    backbone=dict(
        depths=(3, 3, 12, 3),
        init_cfg=dict(
            checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segnext/mscan_b_20230227-3ab7d230.pth"
        ),
    ),
    decode_head=dict(channels=512, ham_channels=512, ham_cfg=dict(rank=64)),
)

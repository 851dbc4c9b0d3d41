_base_ = "./segnext_b.py"
model = dict(
    backbone=dict(
        depths=(3, 5, 27, 3),
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segnext/mscan_l_20230227-cef260d4.pth"
        ),
    ),
    decode_head=dict(channels=1024, ham_channels=1024),
)

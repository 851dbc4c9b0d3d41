_base_ = "./linknet34.py"
model = dict(
    backbone=dict(_delete_=True, type="SevenLevelUNet", init_cfg=None),
    decode_head=dict(in_channels=8, channels=8),
)

_base_ = "./dlinknet34.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="DUNet",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://VGG13_Weights.IMAGENET1K_V1"),
    ),
    decode_head=dict(in_channels=64, channels=64),
)

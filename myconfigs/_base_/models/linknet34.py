model = dict(
    type="EncoderDecoder",
    backbone=dict(
        type="LinkNet34",
        norm_cfg=dict(type="BN"),
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://ResNet34_Weights.IMAGENET1K_V1"),
    ),
    # no convolution: each pixel's features are classified as they are
    decode_head=dict(
        type="FCNHead",
        num_convs=0,
        concat_input=False,
        in_channels=32,
        channels=32,
        dropout_ratio=0.1,
        num_classes=2,
        align_corners=False,
        loss_decode=[
            dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            dict(type="DiceLoss", loss_weight=3.0),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

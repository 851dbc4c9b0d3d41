# The paper's pipelines. A data set states its own statistics and sizes through step_args.
train_pipeline = [
    dict(type="LoadRoadImage"),
    dict(type="LoadRoadMask"),
    dict(type="Resize", img_scale=(1280, 1280), ratio_range=(0.5, 2.0)),
    dict(type="RandomCrop", crop_size=(1024, 1024), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="Normalize", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True),
    dict(type="Pad", size=(1024, 1024), pad_val=0, seg_pad_val=255),
    dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
test_pipeline = [
    dict(type="LoadRoadImage"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(1280, 1280),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True),
            dict(type="ResizeToMultiple", size_divisor=32),
            dict(type="RandomFlip"),
            dict(type="Normalize", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=4,
    train=dict(type="RoadDataset", split="ImageSets/Segmentation/train.txt", pipeline=train_pipeline),
    val=dict(type="RoadDataset", split="ImageSets/Segmentation/val.txt", pipeline=test_pipeline),
    test=dict(type="RoadDataset", split="ImageSets/Segmentation/test.txt", pipeline=test_pipeline),
)

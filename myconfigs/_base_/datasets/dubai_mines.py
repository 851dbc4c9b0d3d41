# Dubai and generated views of mines (docs/datasets.md), which vary in scale themselves
from mmseg_ext.datasets.pipelines import evaluation_steps

_base_ = "./roads.py"
split = "ImageSets/Segmentation/train.txt"
normalize = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # as EfficientNet-Lite0 was trained
load = [dict(type="LoadRoadImage"), dict(type="LoadRoadMask")]
crop = dict(type="RandomAffineCrop", crop_size=(256, 256), max_angle_deg=45, road_probability=0.5)
finish = [
    dict(type="RandomLook"),
    dict(type="Normalize", **normalize, to_rgb=True),
    dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
dubai_steps = [*load, dict(**crop, ratio_range=(0.4, 2.5)), *finish]
mines_steps = [*load, dict(**crop, ratio_range=(0.5, 1.5)), *finish]
test_args = dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=None, img_ratios=[1.0]))
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=2,
    shares=[0.6, 0.4],
    train=[
        dict(type="RoadDataset", data_root="data/Dubai", split=split, pipeline=dubai_steps),
        dict(type="RoadDataset", data_root="data/Mines", split=split, pipeline=mines_steps),
    ],
    val=dict(data_root="data/Dubai", pipeline=evaluation_steps(**test_args)),
    test=dict(data_root="data/Dubai", pipeline=evaluation_steps(**test_args)),
)

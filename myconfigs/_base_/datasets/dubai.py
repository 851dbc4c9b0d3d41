# Dubai (docs/datasets.md); roads of unknown metres per pixel, so that training shows them in many sizes and looks
from mmseg_ext.datasets.pipelines import evaluation_steps

_base_ = "./roads.py"
data_root = "data/Dubai"
normalize = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # as EfficientNet-Lite0 was trained
train_steps = [
    dict(type="LoadRoadImage"),
    dict(type="LoadRoadMask"),
    dict(type="RandomAffineCrop", crop_size=(256, 256), ratio_range=(0.4, 2.5), max_angle_deg=45, road_probability=0.5),
    dict(type="RandomLook"),
    dict(type="Normalize", **normalize, to_rgb=True),
    dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
test_args = dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=None, img_ratios=[1.0]))
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=2,
    train=dict(data_root=data_root, pipeline=train_steps),
    val=dict(data_root=data_root, pipeline=evaluation_steps(**test_args)),
    test=dict(data_root=data_root, pipeline=evaluation_steps(**test_args)),
)

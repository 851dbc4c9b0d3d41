# What tools/demo.py generates: training and validation tiles of 256 px, one whole unseen mine for the test.
from mmseg_ext.datasets.pipelines import evaluation_steps, training_steps

_base_ = "./roads.py"
data_root = "work_dirs/demo/data"
normalize = dict(mean=[156.60, 138.07, 109.79], std=[25.04, 19.34, 21.02])
train_args = dict(
    Normalize=normalize,
    Resize=dict(img_scale=(256, 256), ratio_range=(0.75, 1.5)),
    RandomCrop=dict(crop_size=(160, 160), cat_max_ratio=0.95),
    Pad=dict(size=(160, 160)),
)
tile_args = dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=(256, 256)))
mine_args = dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=(1024, 1024)))
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=2,
    train=dict(data_root=data_root, pipeline=training_steps(**train_args)),
    val=dict(data_root=data_root, pipeline=evaluation_steps(**tile_args)),
    test=dict(data_root=data_root, pipeline=evaluation_steps(**mine_args)),
)

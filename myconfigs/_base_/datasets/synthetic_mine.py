# What tools/demo.py generates: training and validation tiles of 256 px, one whole unseen mine for the test.
_base_ = "./roads.py"
data_root = "work_dirs/demo/data"
normalize = dict(mean=[156.60, 138.07, 109.79], std=[25.04, 19.34, 21.02])
train_args = dict(
    Normalize=normalize,
    Resize=dict(img_scale=(256, 256), ratio_range=(0.75, 1.5)),
    RandomCrop=dict(crop_size=(160, 160), cat_max_ratio=0.95),
    Pad=dict(size=(160, 160)),
)
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=2,
    train=dict(data_root=data_root, step_args=train_args),
    val=dict(data_root=data_root, step_args=dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=(256, 256)))),
    test=dict(data_root=data_root, step_args=dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=(1024, 1024)))),
)

from mmseg_ext.datasets.pipelines import evaluation_steps, training_steps

_base_ = "./roads.py"
data_root = "data/EPFL"
normalize = dict(mean=[105.20, 109.26, 88.26], std=[44.23, 36.57, 38.39])
train_args = dict(
    Normalize=normalize,
    Resize=dict(img_scale=(400, 400)),
    RandomCrop=dict(crop_size=(256, 256)),
    Pad=dict(size=(256, 256)),
)
test_args = dict(Normalize=normalize, MultiScaleFlipAug=dict(img_scale=(400, 400)))
data = dict(
    samples_per_gpu=2,
    workers_per_gpu=2,
    train=dict(data_root=data_root, pipeline=training_steps(**train_args)),
    val=dict(data_root=data_root, pipeline=evaluation_steps(**test_args)),
    test=dict(data_root=data_root, pipeline=evaluation_steps(**test_args)),
)

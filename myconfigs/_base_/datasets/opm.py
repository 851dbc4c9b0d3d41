from mmseg_ext.datasets.pipelines import evaluation_steps, training_steps

_base_ = "./roads.py"
data_root = "data/OpenPitMine"
normalize = dict(mean=[105.20, 109.26, 88.26], std=[44.23, 36.57, 38.39])
data = dict(
    train=dict(data_root=data_root, pipeline=training_steps(Normalize=normalize)),
    val=dict(data_root=data_root, pipeline=evaluation_steps(Normalize=normalize)),
    test=dict(data_root=data_root, pipeline=evaluation_steps(Normalize=normalize)),
)

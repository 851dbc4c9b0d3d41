_base_ = "./roads.py"
data_root = "data/OpenPitMine"
step_args = dict(Normalize=dict(mean=[105.20, 109.26, 88.26], std=[44.23, 36.57, 38.39]))
data = dict(
    train=dict(data_root=data_root, step_args=step_args),
    val=dict(data_root=data_root, step_args=step_args),
    test=dict(data_root=data_root, step_args=step_args),
)

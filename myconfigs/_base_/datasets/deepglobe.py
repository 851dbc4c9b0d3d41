_base_ = "./roads.py"
data_root = "data/DeepGlobe_1024_3"
step_args = dict(Normalize=dict(mean=[105.066, 98.210, 74.203], std=[33.345, 27.466, 25.293]))
data = dict(
    train=dict(data_root=data_root, step_args=step_args),
    val=dict(data_root=data_root, step_args=step_args),
    test=dict(data_root=data_root, step_args=step_args, split="ImageSets/Segmentation/val.txt"),
)

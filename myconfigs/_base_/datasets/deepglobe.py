from mmseg_ext.datasets.pipelines import evaluation_steps, training_steps

_base_ = "./roads.py"
data_root = "data/DeepGlobe_1024_3"
normalize = dict(mean=[105.066, 98.210, 74.203], std=[33.345, 27.466, 25.293])
data = dict(
    train=dict(data_root=data_root, pipeline=training_steps(Normalize=normalize)),
    val=dict(data_root=data_root, pipeline=evaluation_steps(Normalize=normalize)),
    test=dict(
        data_root=data_root,
        pipeline=evaluation_steps(Normalize=normalize),
        split="ImageSets/Segmentation/val.txt",
    ),
)

# The paper's pipelines and the folder layout. A data set gives its statistics and sizes to the two functions, since
# MMSegmentation's own API reads the pipelines only.
from mmseg_ext.datasets.pipelines import evaluation_steps, training_steps

data = dict(
    samples_per_gpu=4,
    workers_per_gpu=4,
    train=dict(type="RoadDataset", split="ImageSets/Segmentation/train.txt", pipeline=training_steps()),
    val=dict(type="RoadDataset", split="ImageSets/Segmentation/val.txt", pipeline=evaluation_steps()),
    test=dict(type="RoadDataset", split="ImageSets/Segmentation/test.txt", pipeline=evaluation_steps()),
)

_base_ = [
    "../_base_/models/dunet.py",
    "../_base_/datasets/deepglobe.py",
    "../_base_/schedules/20k.py",
    "../_base_/runtime.py",
]
data = dict(samples_per_gpu=2)

_base_ = [
    "../../_base_/models/dsegnext_l.py",
    "../../_base_/datasets/opm.py",
    "../../_base_/schedules/40k.py",
    "../../_base_/runtime.py",
]
data = dict(samples_per_gpu=2)

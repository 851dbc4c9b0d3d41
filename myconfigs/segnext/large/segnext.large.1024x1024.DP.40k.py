_base_ = [
    "../../_base_/models/segnext_l.py",
    "../../_base_/datasets/deepglobe.py",
    "../../_base_/schedules/40k.py",
    "../../_base_/runtime.py",
]
data = dict(samples_per_gpu=2)

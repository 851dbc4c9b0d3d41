_base_ = [
    "../_base_/models/dlinknet34.py",
    "../_base_/datasets/opm.py",
    "../_base_/schedules/20k.py",
    "../_base_/runtime.py",
]

_base_ = [
    "../_base_/models/nl_linknet34.py",
    "../_base_/datasets/deepglobe.py",
    "../_base_/schedules/20k.py",
    "../_base_/runtime.py",
]

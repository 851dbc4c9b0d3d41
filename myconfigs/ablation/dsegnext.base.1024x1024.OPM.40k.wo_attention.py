_base_ = "../dsegnext/base/dsegnext.base.1024x1024.OPM.40k.py"
model = dict(backbone=dict(gating_unit=dict(gate=False)))

_base_ = "../dsegnext/base/dsegnext.base.1024x1024.OPM.40k.py"
# without attention, dilations and residual; the several scales stay, as the published Params say
model = dict(backbone=dict(gating_unit=dict(gate=False, dilations=(1, 1, 1, 1)), attention_residual=False))

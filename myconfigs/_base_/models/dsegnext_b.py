_base_ = "./segnext_b.py"
model = dict(
    backbone=dict(
        gating_unit=dict(_delete_=True, type="HDMSCA", kernel_size=5, dilations=(1, 2, 5, 9)),
        init_cfg=dict(checkpoint="pretrained/AttentionModuleK5D1259Cat_base.pth"),
    )
)

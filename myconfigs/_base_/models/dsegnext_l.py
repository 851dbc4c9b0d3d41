_base_ = "./segnext_l.py"
# no encoder of this size was published: tools/pretrain.py makes one
model = dict(
    backbone=dict(
        gating_unit=dict(_delete_=True, type="HDMSCA", kernel_size=5, dilations=(1, 2, 5, 9)),
        init_cfg=dict(checkpoint="pretrained/dsegnext_large.pth"),
    )
)

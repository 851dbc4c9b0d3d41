_base_ = "./linknet34.py"
model = dict(
    backbone=dict(type="DLinkNet34"),
    decode_head=dict(loss_decode=dict(_delete_=True, type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0)),
)

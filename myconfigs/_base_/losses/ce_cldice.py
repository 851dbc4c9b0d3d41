# cross-entropy for the area, clDice for the connection; max_width_px: the widest road of the training crops
loss_decode = [
    dict(type="CrossEntropyLoss", loss_weight=1.0),
    dict(type="SoftClDiceLoss", max_width_px=32, loss_weight=0.5),
]

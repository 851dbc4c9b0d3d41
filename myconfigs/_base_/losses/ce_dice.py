loss_decode = [dict(type="CrossEntropyLoss", loss_weight=1.0), dict(type="DiceLoss", loss_weight=3.0)]

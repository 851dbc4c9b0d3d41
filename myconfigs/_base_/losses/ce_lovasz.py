loss_decode = [
    dict(type="CrossEntropyLoss", loss_weight=1.0),
    dict(type="LovaszLoss", per_image=True, loss_weight=1.0),
]

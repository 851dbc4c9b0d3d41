# Dice finds the roads from the first iterations on, clDice then keeps them in one piece
loss_decode = [
    dict(type="CrossEntropyLoss", loss_weight=1.0),
    dict(type="DiceLoss", loss_weight=3.0),
    dict(type="SoftClDiceLoss", max_width_px=32, loss_weight=1.0),
]

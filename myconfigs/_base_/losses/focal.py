# alpha: weight of the pixels of a class against those that are not of it
loss_decode = [dict(type="FocalLoss", gamma=2.0, alpha=0.5, loss_weight=1.0)]

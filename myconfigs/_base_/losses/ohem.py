# only pixels predicted with less than thresh count, and at least min_kept of each image
loss_decode = [dict(type="CrossEntropyLoss", loss_weight=1.0)]
sampler = dict(type="OHEMPixelSampler", thresh=0.7, min_kept=100000)

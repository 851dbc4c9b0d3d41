_base_ = "./dlinknet34.py"
model = dict(backbone=dict(type="NLLinkNet34"))

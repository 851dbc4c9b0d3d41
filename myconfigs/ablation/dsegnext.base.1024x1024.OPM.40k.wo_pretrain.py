_base_ = "../dsegnext/base/dsegnext.base.1024x1024.OPM.40k.scratch.py"

"""Networks as maps use them, and runners of exported files; nothing here imports PyTorch, mmcv or MMSegmentation."""

custom_imports = dict(imports=["mmseg_ext"], allow_failed_imports=False)
log_config = dict(
    interval=50, hooks=[dict(type="TextLoggerHook", by_epoch=False), dict(type="ResumableTensorboardHook")]
)
dist_params = dict(backend="nccl")
log_level = "INFO"
load_from = None
resume_from = None
workflow = [("train", 1)]
cudnn_benchmark = True
find_unused_parameters = False
min_loaded_share = 0.9
precision = "fp32"

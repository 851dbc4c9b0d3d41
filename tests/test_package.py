"""What importing the package does to the process."""

import os
import subprocess
import sys

REPORTERS = """
import mmseg_ext, numpy, onnx, onnxruntime, openvino, torch
from onnx import TensorProto, helper
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {"x": numpy.ones(1, numpy.float32)})[0] == 1
openvino.convert_model(torch.nn.ReLU(), example_input=torch.ones(1))
"""


def test_nobody_else_is_told_what_runs(tmp_path, root):
    environ = {**os.environ, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("ORT_DISABLE_TELEMETRY", "CI"):
        environ.pop(name, None)
    (tmp_path / "home").mkdir()
    done = subprocess.run([sys.executable, "-c", REPORTERS], cwd=root, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # each keeps the number of its user, and what it has still to send
    left = [str(path) for path in tmp_path.rglob("*") if "Microsoft" in str(path) or "intel" in str(path)]
    assert left == []

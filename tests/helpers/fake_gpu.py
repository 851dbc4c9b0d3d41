"""A GPU that is not there: tensors without data that claim to be on one, and what the host reads of them."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import distributed as dist
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

GPU = torch.device("cuda", 0)
CONFIGS = Path(__file__).resolve().parents[2] / "myconfigs"
MSCAN = {
    "model.backbone.embed_dims": (8, 16, 24, 32),
    "model.backbone.depths": (1, 1, 1, 1),
    "model.backbone.mlp_ratios": (2, 2, 2, 2),
    "model.decode_head": dict(in_channels=[16, 24, 32], channels=32, ham_channels=32, ham_cfg=dict(rank=4)),
}
# a config of every family, and what makes it small
NETWORKS = {
    "segnext/tiny/segnext.tiny.1024x1024.OPM.20k.py": MSCAN,
    "dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py": MSCAN,
    "segformer/segformer.b0.1024x1024.OPM.20k.py": {"model.backbone.num_layers": [1, 1, 1, 1]},
    **{f"linknets/{name}.1024x1024.OPM.20k.py": {} for name in
       ("linknet34", "dlinknet34", "nl_linknet34", "unet", "dunet")},
}  # fmt: skip


class HostReads(list):
    """The operations that made the host wait for what is on the GPU.

    It gets 1 for a number, no for an answer, and every pixel where it asks for some.
    """

    def number(self, mode, func, tensor):
        self.extend(["number"] * (tensor.device.type == "cuda"))
        return False if tensor.dtype == torch.bool else 1 if not tensor.is_floating_point() else 1.0

    def nonzero(self, mode, func, mask):
        self.extend(["nonzero"] * (mask.device.type == "cuda"))
        with mode:
            return torch.empty((mask.numel(), mask.dim()), dtype=torch.long, device=mask.device)

    def numbers(self, tensor):
        self.extend(["numbers"] * (tensor.device.type == "cuda"))
        return [mock.ANY, *[1.0] * (len(tensor) - 1)]  # `total_loss` compares the first with what it sent


def _statistics(count):
    """Return a function like SyncBN's, which return ``count`` numbers per channel in float32."""

    def compute(mode, func, x, *args):
        with mode:
            return tuple(torch.empty(x.shape[1], device=x.device) for _ in range(count))

    return compute


def _same_shape(mode, func, x, *args):
    with mode:
        return torch.empty_like(x)


def backward(loss):
    """Do what autograd's engine does, which needs a driver for tensors that claim to be on a GPU."""
    order, seen, stack = [], set(), [(loss.grad_fn, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack += [(node, True), *((after, False) for after, _ in node.next_functions if after is not None)]
    gradients = {node: [None] * len(node._input_metadata) for node in order}
    gradients[loss.grad_fn][0] = torch.ones_like(loss)
    for node in reversed(order):
        given = gradients.pop(node)
        if hasattr(node, "variable"):
            own = node.variable
            own.grad = given[0] if own.grad is None else own.grad + given[0]
            continue
        with torch.no_grad():
            found = getattr(node, "apply", node)(*given)
            found = found if isinstance(found, tuple) else (found,)
            for (after, number), gradient in zip(node.next_functions, found, strict=False):
                if after is None or gradient is None:
                    continue
                wanted = after._input_metadata[number]
                assert gradient.device == wanted.device
                gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
                before = gradients[after][number]
                gradients[after][number] = gradient if before is None else before + gradient


class _TorchOfSyncBN:
    """torch with a GPU, as SyncBN asks for it."""

    cuda = SimpleNamespace(
        is_available=lambda: True, is_current_stream_capturing=lambda: torch.cuda.is_current_stream_capturing()
    )

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def fake_gpu(patch, processes=1):
    """Let new tensors have no data; yield the host's reads. Other processes are there, but get and send nothing."""
    reads, aten = HostReads(), torch.ops.aten
    for operation, implementation in {
        aten._local_scalar_dense: reads.number,
        aten.nonzero: reads.nonzero,
        aten.batch_norm_stats: _statistics(2),
        aten.batch_norm_gather_stats_with_counts: _statistics(2),
        aten.batch_norm_elemt: _same_shape,
        aten.batch_norm_backward_reduce: _statistics(4),
        aten.batch_norm_backward_elemt: _same_shape,
    }.items():
        patch.setitem(fake_impls.op_implementations_dict, operation.default, implementation)
    patch.setattr(FakeTensor, "tolist", lambda tensor: reads.numbers(tensor))
    patch.setattr(torch.Tensor, "backward", backward)
    patch.setattr(torch._C, "_current_graph_task_id", lambda: 0)  # recompute once, as within the engine
    # where there is no GPU, autocast and the scaler would turn themselves off
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    patch.setattr("torch.nn.modules._functions.torch", _TorchOfSyncBN())
    if processes > 1:
        dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    try:
        with FakeTensorMode(allow_non_fake_inputs=True, static_shapes=True):
            yield reads
    finally:
        torch.clear_autocast_cache()
        if processes > 1:
            dist.destroy_process_group()

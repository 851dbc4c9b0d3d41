import contextlib
import copy
import gc
import importlib.util
import shutil
import signal
from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from mmseg_ext.deploy import runner as runner_module
from mmseg_ext.deploy.choice import fast_precisions
from mmseg_ext.deploy.onnx import OnnxRuntimeSession, TensorRTSession
from mmseg_ext.deploy.openvino import has_bf16
from mmseg_ext.deploy.pytorch import _CudaGraphs, has_compiler
from mmseg_ext.deploy.runner import accelerated, available_backends, make_runner
from mmseg_ext.engine.test_time_augmentation import class_probabilities
from mmseg_ext.errors import ConfigError, MissingExtraError
from mmseg_ext.models.folding import folded

COMPILE = ["compile"] if has_compiler() else []

FP32 = ("plain", "torch", "onnxruntime", "openvino")


@pytest.fixture(scope="module")
def plain(network, images):
    """What the network itself says, asked without any of the package's runners."""
    with torch.no_grad():
        return network.encode_decode(images, [{}] * len(images))


@pytest.fixture(scope="module")
def runner(network, cache):
    """Return a function that makes every runner once."""
    made = {}

    def get(backend, precision="fp32"):
        if (backend, precision) not in made:
            made[backend, precision] = make_runner(network, backend, precision)
        return made[backend, precision]

    return get


def agreement(found, wanted):
    return (found.argmax(1) == wanted.argmax(1)).float().mean()


def test_the_networks_scores_are_worth_comparing(plain):
    assert plain.std() > 0.3
    assert 0.1 < plain.argmax(1).float().mean() < 0.9


@pytest.mark.parametrize("backend", FP32)
def test_float32_scores_are_those_of_the_network(backend, runner, images, plain):
    found = runner(backend)(images)
    assert found.dtype == torch.float32 and found.shape == plain.shape
    assert (found - plain).abs().max() < (1e-6 if backend == "plain" else 1e-3)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bfloat16_agrees_on_classes(backend, runner, images, plain):
    if backend == "openvino" and not has_bf16():
        with pytest.raises(ConfigError, match="--backend openvino --precision bf16: not possible on cpu; take fp32"):
            runner(backend, "bf16")
        return
    found = runner(backend, "bf16")(images)
    assert found.dtype == torch.float32
    assert agreement(found, plain) > 0.98  # random weights: many pixels near the border
    assert 0 < (found - plain).abs().max() < 0.3  # it is not float32 under another name


@pytest.mark.parametrize("backend", FP32)
def test_the_same_input_gives_the_same_bits(backend, runner, images):
    run = runner(backend)
    first = run(images).clone()
    run(images.flip(0))
    assert torch.equal(run(images), first)


@pytest.mark.parametrize("backend", FP32)
def test_a_batch_gives_what_its_images_give(backend, runner, images):
    run = runner(backend)
    single = torch.cat([run(image[None]) for image in images])
    assert (run(images).softmax(1) - single.softmax(1)).abs().max() < 1e-4


@pytest.mark.parametrize("backend", FP32)
def test_scores_stay_when_the_next_image_comes(backend, runner, images):
    run = runner(backend)
    kept = run(images)
    before = kept.clone()
    run(-images)
    assert torch.equal(kept, before)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_sizes_that_fit_no_stride_give_the_networks_scores(backend, network, images, caplog):
    odd = images[:1, :, :70, :101]
    with torch.no_grad():
        wanted = network.encode_decode(odd, [{}])
    run = make_runner(network, backend)
    found = [run(odd) for _ in range(2)]
    assert (found[0] - wanted).abs().max() < 1e-3
    assert torch.equal(found[0], found[1])
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == "images of 101 x 70 px are no multiples of 32 px; such images run through the torch backend"


def test_more_shapes_than_openvino_compiles_for(runner, network):
    run = runner("openvino")
    for width in range(32, 32 * 8, 32):
        image = torch.randn(1, 3, 32, width, generator=torch.Generator().manual_seed(width))
        with torch.no_grad():
            wanted = network.encode_decode(image, [{}])
        assert (run(image) - wanted).abs().max() < 1e-3


def test_signals_are_handled_after_openvino_networks_are_gone(network, images):
    runners = [make_runner(network, "openvino") for _ in range(2)]
    for run in runners:
        run(images)
    while runners:
        runners.pop(0)
    del run
    gc.collect()
    handled = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


def test_the_network_stays_as_it_is(network, images, plain):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    layouts = {name: value.stride() for name, value in network.named_parameters()}
    for backend, precision in (("torch", "bf16"), ("onnxruntime", "fp32")):
        make_runner(network, backend, precision)(images)
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert layouts == {name: value.stride() for name, value in network.named_parameters()}
    with torch.no_grad():
        assert torch.equal(network.encode_decode(images, [{}] * 2), plain)


def test_an_exported_file_runs_in_place_of_the_network(network, runner, images, cache):
    expected = runner("onnxruntime")(images)
    path = str(next(cache.glob("*/network.onnx")))
    other = copy.deepcopy(network)
    other.decode_head.conv_seg.bias.add_(1)  # the file has the weights, not the network
    assert torch.equal(make_runner(other, "onnxruntime", model_file=path)(images), expected)
    assert (make_runner(other, "openvino", model_file=path)(images) - expected).abs().max() < 1e-3


SECOND = torch.device("cuda", 1)


@pytest.fixture()
def card(monkeypatch):
    """Put a stand-in for what records on a GPU in the place of torch's; return what it was asked for."""
    first = SimpleNamespace(wait_stream=lambda other: None)
    card = SimpleNamespace(stream=first, first=first, devices=[], recorded=[], replayed=[], given_back=[], fails=None)

    class Graph:
        def replay(self):
            card.replayed.append(self)

        def reset(self):
            card.given_back.append("recorded")

    class Recording:
        def __init__(self, graph, pool, stream, capture_error_mode):
            card.recorded.append((pool, capture_error_mode))
            self.own = stream

        def __enter__(self):
            self.before, card.stream = card.stream, self.own

        def __exit__(self, *error):
            if card.fails:
                raise RuntimeError(card.fails)  # torch then stays on the stream of the recording
            card.stream = self.before

    @contextlib.contextmanager
    def stream(side):
        before, card.stream = card.stream, side
        try:
            yield
        finally:
            card.stream = before

    @contextlib.contextmanager
    def device(number):
        card.devices.append(number)
        yield

    stand_ins = dict(Stream=lambda: SimpleNamespace(wait_stream=lambda other: None), stream=stream, device=device)
    stand_ins |= dict(current_stream=lambda: card.stream, current_device=lambda: 1, graph_pool_handle=lambda: "pool")
    for name, stand_in in dict(**stand_ins, CUDAGraph=Graph, graph=Recording).items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda *given, name=name: card.given_back.append((name, *given)))
    return card


def test_cuda_graphs_bear_other_threads_and_share_their_memory_on_their_own_card(card):
    calls = []

    def work(image):
        calls.append((image.shape, card.stream))
        return image * 2

    run = _CudaGraphs(work, SECOND)
    images = [torch.full((1, 3, 4, width), float(width)) for width in (4, 8)]
    for image in images:
        assert torch.equal(run(image), image * 2)
    assert card.recorded == [("pool", "thread_local")] * 2
    assert len(calls) == 2 * 4 and len(card.replayed) == 2  # three warm up, one is recorded
    (side,) = {id(stream) for _, stream in calls}  # within one stream, memory is shared
    assert id(card.first) != side and card.stream is card.first
    run(images[0] + 1)
    given = run.graphs[images[0].shape][1]
    assert len(calls) == 2 * 4 and card.replayed[-1] is card.replayed[0] and torch.equal(given, images[0] + 1)
    assert card.devices == [SECOND] * 3


@pytest.mark.parametrize("ended", [False, True])
def test_a_recording_that_fails_leaves_no_trace_but_a_warning(card, monkeypatch, caplog, ended):
    card.fails = None if ended else "operation not permitted when stream is capturing\nand more"
    used = []

    def work(image):
        used.append(card.stream)
        if ended and len(used) == 4:
            raise torch.OutOfMemoryError("out of memory")
        return image * 2

    def refuse(*given):
        raise RuntimeError("no recording is under way")

    if ended:
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", refuse)
    run = _CudaGraphs(work, SECOND)
    for width in (4, 8):
        image = torch.full((1, 3, 4, width), float(width))
        assert torch.equal(run(image), image * 2)
    assert [stream is card.first for stream in used] == [False] * 4 + [True] * 2
    assert card.stream is card.first and len(card.recorded) == 1 and not card.replayed
    pool = [("_cuda_endAllocateToPool", 1, "pool"), ("_cuda_releasePool", 1, "pool")]
    assert card.given_back == ["recorded", *([] if ended else pool)]
    (said,) = [record.getMessage() for record in caplog.records]
    reason = "out of memory" if ended else "operation not permitted when stream is capturing"
    assert said == f"CUDA graphs do not work here ({reason}); kernels run one by one"


def test_cuda_graphs_give_up_their_memory_where_the_rest_needs_it(card, caplog):
    short = [True]

    def work(image):
        if image.shape[3] == 16 and (run.graphs or short[0]):
            raise torch.OutOfMemoryError("out of memory")
        return image * 2

    run = _CudaGraphs(work, SECOND)
    run.graphs = dict.fromkeys(range(4))  # as many as there may be
    image = torch.ones(1, 3, 4, 16)
    with pytest.raises(torch.OutOfMemoryError):
        run(image)
    assert not run.graphs and "CUDA graphs give up theirs" in caplog.text
    short[0] = False
    run.graphs, run.works = dict.fromkeys(range(4)), True
    assert torch.equal(run(image), image * 2)
    assert not run.graphs and not run.works and not card.recorded


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_a_gpu_gets_the_network_folded_for_a_gpu(backend, network, images, plain, cache, monkeypatch):
    opened = []
    for name in ("OnnxRuntimeSession", "TensorRTSession"):
        monkeypatch.setattr(runner_module, name, lambda path, *rest: opened.append(path) or OnnxRuntimeSession(path))
    monkeypatch.setattr(runner_module, "_check", lambda *rest: None)  # there is no GPU here
    run = make_runner(network, backend, device=torch.device("cuda", 0))
    kinds = Counter(node.op_type for node in onnx.load(opened[-1]).graph.node)
    wanted = sum(isinstance(module, torch.nn.Conv2d) for module in folded(network, "cuda").modules())
    assert (kinds["Conv"], kinds["Pad"]) == (wanted, 0)
    assert wanted < sum(isinstance(module, torch.nn.Conv2d) for module in folded(network, "cpu").modules())
    assert (run(images) - plain).abs().max() < 1e-3


@pytest.mark.parametrize("precision, types", [("fp32", {}), ("fp16", {"trt_fp16_enable": True})])
def test_a_provider_whose_libraries_are_missing_is_named(monkeypatch, precision, types):
    """ONNX Runtime itself goes on without it, on another provider."""
    asked, missing = [], []

    class Session:
        def __init__(self, path, options, providers):
            asked[:] = [(provider, {}) if isinstance(provider, str) else provider for provider in providers]

        def get_providers(self):
            return [name for name, _ in asked if name not in missing]

        def get_outputs(self):
            return [SimpleNamespace(name="scores", shape=["N", 2, "H", "W"])]

        def get_modelmeta(self):
            return SimpleNamespace(custom_metadata_map={})

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    assert TensorRTSession("a.onnx", SECOND, precision).channels == 2
    cuda, cpu = ("CUDAExecutionProvider", {"device_id": 1}), ("CPUExecutionProvider", {})
    assert asked == [("TensorrtExecutionProvider", {"device_id": 1, **types}), cuda, cpu]
    missing.append("TensorrtExecutionProvider")
    with pytest.raises(
        ConfigError, match="cannot start its TensorrtExecutionProvider: libraries are .* --backend torch"
    ):
        TensorRTSession("a.onnx", SECOND, precision)
    OnnxRuntimeSession("a.onnx", SECOND)
    assert asked == [cuda, cpu]
    missing.append("CUDAExecutionProvider")
    with pytest.raises(ConfigError, match="cannot start its CUDAExecutionProvider"):
        OnnxRuntimeSession("a.onnx", SECOND)
    OnnxRuntimeSession("a.onnx")
    assert asked == [cpu]


@pytest.mark.parametrize(
    "backend, precision, model_file, words",
    [
        ("cuda", "fp32", None, "--backend cuda: unknown; take one of plain, torch"),
        ("torch", "fp8", None, "--precision fp8: unknown; take one of fp32"),
        ("plain", "bf16", None, "plain --precision bf16: not possible on cpu; take fp32"),
        ("torch", "fp16", None, "not possible on cpu; take fp32 or bf16"),
        ("onnxruntime", "bf16", None, "take fp32 or int8"),
        ("openvino", "int8", None, "tools/export.py --precision int8"),
        ("torch", "fp32", "a.onnx", "a.onnx: --backend torch runs no exported file"),
        ("onnxruntime", "int8", "gone.onnx", "gone.onnx: no such file"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(network, backend, precision, model_file, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make_runner(network, backend, precision, model_file=model_file)
    assert "\n" not in str(caught.value)


def test_missing_packages_are_named_and_not_available(network, monkeypatch):
    find_spec = importlib.util.find_spec
    gone = ("openvino", "onnxruntime", "tensorrt")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in gone else find_spec(name, *rest)
    )
    assert set(available_backends()) == {"plain", "torch", *COMPILE}
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(MissingExtraError, match=f"--backend {backend} needs {backend}.*extra 'deploy'"):
            make_runner(network, backend)


def test_all_backends_that_are_installed_are_available():
    assert set(available_backends()) == {"plain", "torch", "onnxruntime", "openvino", *COMPILE}


def test_no_compiler_is_one_line(network, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no C[+][+] compiler .*; take one of plain, torch"):
        make_runner(network, "compile")


@pytest.mark.slow
def test_compiled_scores_are_those_of_the_network(network, images, plain, caplog, compiler):
    caplog.set_level("INFO")
    run = make_runner(network, "compile")
    assert (run(images) - plain).abs().max() < 1e-3
    assert "took" in caplog.text
    assert agreement(make_runner(network, "compile", "bf16")(images), plain) > 0.98


@pytest.mark.gpu
@pytest.mark.parametrize("precision, most", [("fp32", 1e-2), ("bf16", 0.3), ("fp16", 0.1)])
def test_gpu_scores_are_those_of_the_network(network, images, plain, precision, most):
    device = torch.device("cuda", torch.cuda.device_count() - 1)  # not the current one, where there are several
    if precision == "bf16" and "bf16" not in fast_precisions(device):
        pytest.skip("this GPU only emulates bf16")
    run = make_runner(network, "torch", precision, device)
    for _ in range(2):  # recorded, then replayed
        found = run(images.to(device)).cpu()
        assert (found - plain).abs().max() < most
    assert agreement(found, plain) > 0.98


@pytest.mark.gpu
def test_a_recording_that_fails_on_a_gpu_gives_its_memory_back():
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    image = torch.ones(1, 3, 1024, 1024, device=device)
    run = _CudaGraphs(lambda image: image.repeat(8, 1, 1, 1)[:1] * float(image.mean()), device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    for _ in range(2):
        assert torch.equal(run(image), image)
    assert not run.works and torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(device) == before


def metas(height, width, flip):
    shape = (height, width, 3)
    return [dict(img_shape=shape, ori_shape=shape, flip=flip, flip_direction="horizontal")]


@pytest.fixture()
def test_cfg(network):
    """Restore how the network is run."""
    before = network.test_cfg
    yield
    network.test_cfg = before


@pytest.mark.parametrize("mode", [dict(mode="whole"), dict(mode="slide", crop_size=(64, 64), stride=(40, 48))])
def test_mmsegmentations_inference_and_augmentation_stay_the_same(network, images, mode, test_cfg):
    network.test_cfg = type(network.test_cfg)(mode)
    fast = accelerated(network, "openvino")
    copies = [images[:1], images[:1].flip(3)]
    told = [metas(96, 128, False), metas(96, 128, True)]
    with torch.no_grad():
        wanted = class_probabilities(network, copies, told, (0, 1))
        found = class_probabilities(fast, copies, told, (0, 1))
    assert (found - wanted).abs().max() < 1e-4
    assert wanted.std() > 0.05


def test_the_segmentor_itself_is_not_accelerated(network, images):
    with torch.no_grad():
        before = network.encode_decode(images, [{}] * 2)
        fast = accelerated(network, "torch", "bf16")
        assert not torch.equal(fast.encode_decode(images, [{}] * 2), before)
        assert torch.equal(network.encode_decode(images, [{}] * 2), before)


def test_labels_of_simple_test(network, images):
    with torch.no_grad():
        wanted = network.simple_test(images[:1], metas(96, 128, False))
        found = accelerated(network, "onnxruntime").simple_test(images[:1], metas(96, 128, False))
    assert np.mean(found[0] == wanted[0]) > 0.999

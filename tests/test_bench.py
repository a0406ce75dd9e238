"""The command ``cpuconv bench``: what it measures, and what it writes."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cpuconv.bench import measure, peers, worker
from cpuconv.bench.layers import GROUPED_NETWORKS, NETWORKS, all_layers, class_of, layers_of
from cpuconv.bench.peers import ALL, OURS, PEERS, Peer, Runner
from cpuconv.cli.app import app

TINY = "MobileNetV2 1x1 320-1280 @7"
LAYER = next(layer for layer in all_layers() if layer.name == TINY)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "--layers", f"^{TINY}$", "--seconds", "0.01", *map(str, arguments)])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, list[str]]:
    """The command's directory, its result, and the peers that were asked for."""
    output = tmp_path_factory.mktemp("bench")
    asked = [] if PEERS["torch"].missing else ["torch", "torch_cl"]
    return output, run("--peers", ",".join(asked), "--output", output), asked


def test_the_layers_are_those_of_the_networks() -> None:
    # distinct layers, all layers, millions of multiply-adds of all
    expected = {
        "ResNet-50": (23, 53, 4087.1), "VGG-16": (9, 13, 15346.6), "MobileNetV2": (30, 52, 299.5), "EfficientNet-B0": (32, 49, 383.9),
        "YOLOv8n": (41, 64, 4372.0), "U-Net": (14, 18, 46015.7), "DeepLabV3": (5, 27, 24970.8), "ConvNeXt-T": (8, 22, 293.0), "TextCNN": (3, 3, 44.9),
    }  # fmt: skip
    for network in NETWORKS:
        layers = layers_of(network)
        macs = sum(layer.count * layer.problem.flops // 2 for layer in layers) / 1e6
        assert (len(layers), sum(layer.count for layer in layers), pytest.approx(macs, rel=1e-3)) == expected[network], network
    assert len({layer.name for layer in all_layers()}) == len(all_layers()) == 165
    grouped = [layer for network in GROUPED_NETWORKS for layer in layers_of(network)]
    assert {class_of(layer.problem) for layer in grouped} == {"grouped"}
    assert "RegNet 3x3/2 48-48 g6 @112" in {layer.name for layer in grouped}
    assert Counter(class_of(layer.problem) for layer in all_layers()) == {"1x1": 73, "3x3 stride 1": 41, "depthwise": 26, "other": 25}


def test_everything_is_written(written: tuple[Path, Result, list[str]]) -> None:
    output, result, _ = written
    assert result.exit_code == 0, result.output
    assert {path.name for path in output.iterdir()} == {"results.json", "results.md", "roofline.png", "networks.png", "layers-mobilenetv2.png"}
    for path in output.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_figures_agree_with_each_other(written: tuple[Path, Result, list[str]]) -> None:
    output, _, asked = written
    document = json.loads((output / "results.json").read_text())
    (layer,) = document["layers"]
    assert {"cpu", "isa", "threads", "versions", "missing", "roofs"} <= set(document)
    assert (document["threads"], document["missing"]) == (1, {})
    assert set(layer["us"]) == {*OURS, *asked}
    assert layer["problem"] == str(LAYER.problem)
    for name, us in layer["us"].items():
        assert layer["gflops"][name] == pytest.approx(LAYER.problem.flops / us / 1e3)
        assert 0 < layer["error"][name] < 1e-5


def test_the_report_has_its_tables(written: tuple[Path, Result, list[str]]) -> None:
    output, result, asked = written
    text = (output / "results.md").read_text()
    for title in ("cpuconv NCHW", "cpuconv NHWC", *(PEERS[name].title for name in asked)):
        assert f" {title} |" in text
        assert title in result.output
    assert TINY in text
    assert "nan" not in text
    for picture in output.glob("*.png"):
        assert f"({picture.name})" in text


def test_batches(tmp_path: Path) -> None:
    result = run("--batch", "3", "--peers", "", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "batch 3" in result.output and "batch 3" in (tmp_path / "results.md").read_text()
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["batch"] == 3 and document["layers"][0]["problem"].startswith("n3_")


def test_missing_peers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "absent", Peer("Absent", peers.cpuconv_nchw, ("no_such_module",), "no-such-package"))
    monkeypatch.setitem(ALL, "absent", PEERS["absent"])
    result = run("--peers", "absent", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Absent is left out: no_such_module not installed." in result.output
    assert "Absent (no_such_module)" in (tmp_path / "results.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["missing"] == {"absent": ["no_such_module"]}


@pytest.mark.parametrize("peer", [name for name in PEERS if not PEERS[name].missing])
def test_peers_give_the_right_result(peer: str) -> None:
    # In a process of its own, as a peer may crash; a peer that its own requirements keep from running is not ours to test.
    (result,) = worker.run([replace(LAYER, problem=replace(LAYER.problem, n=2))], [peer], 1, 0.001)
    if peer in result.failures:
        assert "wrong result" not in result.failures[peer]
        pytest.skip(result.failures[peer])
    assert result.errors[peer] < 1e-3


def _broken(kind: str) -> Peer:
    def build(p, x, w, b, threads):
        if kind == "raises":
            raise RuntimeError("no\nidea")
        result = np.full(p.y_shape, np.nan if kind == "nan" else 1.0, np.float32)
        return Runner(lambda: None, lambda: result)

    return Peer(kind, build, (), "")


def test_a_wrong_result_or_an_exception_excludes_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("raises", "nan", "ones"):
        monkeypatch.setitem(ALL, kind, _broken(kind))
    result = measure.measure(LAYER, ["cpuconv_nchw", "raises", "nan", "ones"], 1, 0.001, [])
    assert list(result.seconds) == ["cpuconv_nchw"]
    assert result.failures["raises"] == "RuntimeError: no"
    assert result.failures["nan"] == "wrong result: error inf of max|y|"
    assert result.failures["ones"].startswith("wrong result")


def test_a_crash_costs_the_crashing_peer_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The worker is another process, so the peer that crashes is planted by a module that Python imports at its start.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('CRASH'):\n"
        "    from cpuconv.bench import peers\n"
        "    def crash(p, *rest):\n"
        "        if p.ic == 320: os.abort()\n"
        "        return peers.cpuconv_nchw(p, *rest)\n"
        "    peers.ALL['torch'] = peers.Peer('crash', crash, (), '')\n"
    )
    monkeypatch.setenv("CRASH", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) + ":" + str(Path(measure.__file__).parents[2]))
    other = next(layer for layer in layers_of("MobileNetV2") if layer.label == "1x1 960-320 @7")
    first, second = worker.run([LAYER, other], ["cpuconv_nchw", "torch"], 1, 0.001)
    assert set(first.seconds) == {"cpuconv_nchw"}
    assert first.failures == {"torch": "crashed: SIGABRT"}
    assert set(second.seconds) == {"cpuconv_nchw", "torch"}


def test_a_worker_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="status 1"):
        list(worker.run([LAYER], ["cpuconv_nchw"], 1, 0.001))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--peers", "nobody"), "'nobody' is not one of torch"),
        (("--layers", "("), "is not a regular expression"),
        (("--layers", "no such layer"), "no layer matches 'no such layer'"),
        (("--network", "AlexNet"), "'AlexNet' is not one of"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "--output", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_measuring_imports_no_peer() -> None:
    code = "import sys, cpuconv.bench.worker; print(*{'torch', 'onnx', 'ncnn', 'matplotlib', 'click'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""

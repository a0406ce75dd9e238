"""The command line, through its public commands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cpuconv
from cpuconv import calibration, tuning
from cpuconv.cli import filters, network
from cpuconv.cli.app import app

SPEC = "n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture with smooth parts and edges."""
    y, x = np.mgrid[:40, :60]
    red, green, blue = x * 4, y * 6, 255 * ((x // 8 + y // 8) % 2)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def short_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STACK", (network.Layer(8, 7, stride=2, pool=8), network.Layer(8, 3), network.Layer(8, 3, depthwise=True)))


def test_version() -> None:
    assert run("--version").output == f"cpuconv, version {cpuconv.__version__}\n"


@pytest.mark.parametrize("command", [(), ("info",), ("explain",), ("demo",), ("bench",), ("tune",), ("wisdom",), ("wisdom", "forget")])
def test_help(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_info_names_the_machine() -> None:
    result = run("info")
    assert result.exit_code == 0
    for text in (cpuconv.__version__, np.__version__, "isa", "l1", "KiB", "threads", "blas", "numba"):
        assert text in result.output


def test_explain_marks_the_choice_and_gives_reasons() -> None:
    result = run("explain", SPEC)
    assert result.exit_code == 0
    for name in cpuconv.algorithms():
        assert name in result.output
    chosen = next(line for line in cpuconv.explain(SPEC).splitlines() if line.startswith("*")).split()[1]
    assert f"● {chosen}" in " ".join(result.output.split())


def test_explain_obeys_the_budget() -> None:
    assert "plain summation only" in " ".join(run("explain", SPEC, "--accuracy", "strict").output.split())
    assert "over accuracy" in run("explain", SPEC, "--algorithm", "winograd", "--accuracy", "1e-9").output
    assert "No algorithm fits." in run("explain", SPEC, "--algorithm", "im2col", "--workspace-limit", "0").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conv3x3"], "'conv3x3' is not like"),
        ([SPEC.replace("_g1_", "_g3_")], "groups: 3 must divide"),
        ([SPEC.replace("kh3", "kh99")], "larger than the padded input"),
        ([SPEC, "--accuracy", "good"], "neither a positive number"),
        ([SPEC, "--accuracy", "-1"], "neither a positive number"),
        ([SPEC, "--algorithm", "magic"], "'magic'"),
        ([SPEC, "--workspace-limit", "-1"], "-1"),
        ([], "Missing argument"),
    ],
)
def test_explain_refuses(arguments: list[str], message: str) -> None:
    result = run("explain", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_tune_then_explain_show_and_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ENOUGH", 0.02)  # so that no limit of time is met
    others = [f"n1_ic{ic}_ih8_iw8_oc8_kh1_kw1_s1_p0_d1_g1_f32_nhwc" for ic in (4, 8)]
    listed = tmp_path / "network.txt"
    listed.write_text(f"# a network\n\n{others[0]}  # first\n{others[1]}\n")
    assert "-" in explained_times(others[0])
    result = run("tune", SPEC, "--file", listed, "--seconds", 60)
    assert result.exit_code == 0, result.output
    for spec in (SPEC, *others):
        assert spec in result.output
        assert f"{cpuconv.wisdom.measured(cpuconv.Problem.parse(spec), cpuconv.cpu.detect())}" != "{}"
    assert "-" not in explained_times(others[0])

    assert Path(run("wisdom", "path").output.strip()) == cpuconv.wisdom.path()
    shown = run("wisdom", "show").output
    assert all(spec in shown for spec in (SPEC, *others)) and " us" in shown
    assert run("wisdom", "forget", others[0]).output == "Forgot 1 problem.\n"
    assert others[0] not in run("wisdom", "show").output
    assert run("wisdom", "forget", "--all").output == "Forgot 2 problems.\n"
    assert "Nothing was measured yet" in run("wisdom", "show").output


def explained_times(spec: str) -> str:
    """The measured time of the algorithm chosen, as `explain` shows it."""
    row = next(line for line in run("explain", spec).output.splitlines() if "●" in line)
    return row.split()[4]


def test_tune_calibrates(wisdom_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_measure", lambda cpu: cpuconv.Rates(1.25, 2.0, 90.0, 80.0, 30.0))
    assert "1.25 GHz" in run("tune", "--calibrate").output
    assert "1.25 GHz" in " ".join(run("info").output.split())
    assert run("wisdom", "forget", "--all").output == "Forgot 0 problems.\n"
    assert "typical" in run("info").output


def test_tune_says_for_which_no_time_was_left() -> None:
    result = run("tune", SPEC, "--seconds", 1e-9)
    assert result.exit_code == 0
    assert "No time was left for 1 of 1" in result.output


def test_wisdom_show_marks_outdated_figures() -> None:
    measured = {"im2col": cpuconv.wisdom.Measured(-1, 1e-6), "reference": cpuconv.wisdom.Measured(1, 1e-3)}
    cpuconv.wisdom.record(cpuconv.Problem.parse(SPEC), cpuconv.cpu.detect(), measured)
    assert "im2col (outdated)" in run("wisdom", "show").output


def test_tune_and_wisdom_refuse(tmp_path: Path) -> None:
    listed = tmp_path / "network.txt"
    listed.write_text(f"{SPEC}\nconv3x3\n")
    for arguments, message in (
        (["tune"], "Nothing to tune"),
        (["tune", "conv3x3"], "'conv3x3' is not like"),
        (["tune", "--file", str(listed)], "line 2: 'conv3x3' is not like"),
        (["tune", "--file", str(tmp_path / "missing")], "does not exist"),
        (["tune", SPEC, "--seconds", "0"], "0"),
        (["wisdom", "forget"], "either SPECs or --all"),
        (["wisdom", "forget", SPEC, "--all"], "either SPECs or --all"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.split())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_demo_writes_its_pictures(layout: str, image: Path, tmp_path: Path, short_stack: None) -> None:
    output = tmp_path / "new" / "pictures"
    result = run("demo", image, "--output", output, "--layout", layout, "--threads", 1, "--seconds", 0.1)
    assert result.exit_code == 0, result.output
    assert "agree with the float64 reference" in result.output
    written = sorted(output.iterdir())
    assert len(written) == len(filters.BANK) + 2
    for path in written:
        assert path.suffix == ".png"
        assert path.name in result.output
        with Image.open(path) as picture:
            picture.load()
            if path.name in ("filters.png", "layers.png"):
                assert min(picture.size) > 300
            else:
                assert picture.size == (60, 40)


def test_demo_scales_large_photos_down_and_takes_other_modes(tmp_path: Path, short_stack: None) -> None:
    photo = tmp_path / "wide.png"
    Image.new("LA", (1300, 40), (200, 128)).save(photo)
    result = run("demo", photo, "--output", tmp_path, "--seconds", 0.1)
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "emboss.png") as picture:
        assert picture.size == (640, 20)


def test_demo_runs_the_whole_stack_on_its_own_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpuconv.cli.demo.LONGEST", 150)
    result = run("demo", "--output", tmp_path, "--seconds", 0.1)
    assert result.exit_code == 0, result.output
    assert "Grace Hopper" in result.output
    with Image.open(tmp_path / "gaussian-blur.png") as picture:
        assert picture.size == (128, 150)


def test_demo_fails_where_a_result_is_wrong(image: Path, tmp_path: Path, short_stack: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = cpuconv.conv2d
    monkeypatch.setattr(cpuconv, "conv2d", lambda *args, **kwargs: right(*args, **kwargs) + np.float32(1e-3))
    result = run("demo", image, "--output", tmp_path, "--seconds", 0.1)
    assert result.exit_code == 1
    assert f"{len(filters.BANK)} of " in result.output
    assert "differ from the reference by more than allowed" in result.output


def test_demo_refuses_a_missing_file(tmp_path: Path) -> None:
    result = run("demo", tmp_path / "missing.jpg", "--output", tmp_path)
    assert result.exit_code == 2
    assert "does not exist" in result.output


def test_demo_refuses_what_is_no_image(image: Path, tmp_path: Path) -> None:
    text, half = tmp_path / "text.png", tmp_path / "half.png"
    text.write_text("not a picture")
    half.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    for path in (text, half):
        result = run("demo", path, "--output", tmp_path / "out")
        assert result.exit_code == 2
        assert "is not an image that can be read" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_demo_refuses_a_tiny_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 400)).save(tmp_path / "tiny.png")
    result = run("demo", tmp_path / "tiny.png", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "each side needs at least" in result.output


def test_demo_refuses_an_output_that_is_a_file(image: Path) -> None:
    assert run("demo", image, "--output", image).exit_code == 2
    assert run("demo", image, "--output", image / "below").exit_code == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted_demo_leaves_no_half_files(image: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "cpuconv", "demo", str(image), "--output", str(output), "--seconds", "600"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        process.stdout.readline()  # it has begun
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(output.iterdir()) == []


@pytest.mark.parametrize("package", ["click", "rich", "PIL", "matplotlib"])
def test_missing_extra_is_named(package: str) -> None:
    done = python(f"import sys; sys.modules[{package!r}] = None; sys.argv = ['cpuconv', 'demo']; from cpuconv.cli import main; sys.exit(main())")
    assert done.returncode == 1
    assert done.stderr == "the command line needs its extra: pip install 'cpuconv[cli]'\n"


def test_importing_cpuconv_imports_nothing_of_the_extra() -> None:
    done = python("import sys, cpuconv; print(sorted({'click', 'rich', 'PIL', 'matplotlib'} & set(sys.modules)))")
    assert done.stdout == "[]\n"

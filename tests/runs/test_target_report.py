"""Lines about a target, from what its compiler would say."""

import dataclasses

import jax
import numpy as np
import pytest

from logo_jax import configs, doctor
from logo_jax.experiment import ahead, make_spec, parse
from logo_jax.experiment.ahead import AheadStep, KnownImages, _refused, floor_seconds
from logo_jax.parallel.mesh import make_mesh
from logo_jax.parallel.targets import CHIPS, GIB, Target
from logo_jax.runs import target_report

EXCHANGES = {"all-reduce": (4, 93_000_000), "all-gather": (3, 2_000_000)}
STEP = AheadStep(
    num_bytes=3 * GIB,
    code=GIB // 10,
    flops=2e12,
    moved=40e9,
    exchanges=EXCHANGES,
    instructions=31_931,
    donated=GIB // 4,
    seconds=0.05,
    compilation=44.0,
)
HBM = "Ran out of memory on HBM, the total memory required for HLO temporaries "


@pytest.fixture(name="lines")
def fixture_lines(monkeypatch):
    """A function that describes a config for four TPUs, of which steps are given."""
    mesh = make_mesh(jax.devices()[:4])
    monkeypatch.setattr(doctor, "find_target", lambda name: Target(CHIPS["v5e"], mesh))

    def lines(capsys, *arguments, config="cifar10_moco", step=STEP):
        made = step if callable(step) else lambda *_: step
        monkeypatch.setattr(target_report, "compile_ahead", made)
        fields = ("--config.data.data_dir=/nowhere", *arguments)
        code = doctor.main([f"--config={config}", "--target=v5e:2x2", *fields])
        found = {}
        for line in capsys.readouterr().out.splitlines():
            found.setdefault(line[5:14].strip(), line)
        return code, found

    return lines


def test_a_step_that_fits_is_described_without_its_images(lines, capsys):
    code, found = lines(capsys, "--level=default")
    assert code == 0
    assert found["data"].startswith(
        "ok   data     50,000 images of cifar10, by its published size, stored at 32x32"
    )
    assert found["batch"] == "ok   batch    512 = 4 devices x 128"
    assert "2 TFLOP and 40 GB moved on each device, 31,931 instr" in found["step"]
    assert found["memory"] == (
        "ok   memory   3 GiB per device, 0.1 GiB of it code, and 0.143 GiB of images, "
        "of 15.8 GiB: it fits"
    )
    assert "4 all-reduce of 93 MB, 3 all-gather of 2 MB" in found["exchange"]
    # 40 GB at 819 GB/s, 97 steps an epoch, 200 epochs
    assert "a floor, from stated peaks, of 48.8 ms a step" in found["time"]
    assert "0:15:47 or more for 19,400 steps" in found["time"]
    assert "rules, not compiled" in found["help"]


@pytest.mark.parametrize(
    ("gib", "level", "verdict", "text"),
    [
        (7, "O0", "ok", "needs 6.44 GiB to 14.1 GiB: it fits"),
        (8, "O0", "warn", "it may not fit; --level=default compiles as a run does"),
        (17.5, "O0", "FAIL", "it does not fit"),
        (14, "default", "ok", "of 15.8 GiB: it fits"),
        (15, "default", "warn", "of 15.8 GiB: it may not fit"),
    ],
)
def test_the_level_of_optimization_asks_for_a_margin(
    gib, level, verdict, text, lines, capsys
):
    step = dataclasses.replace(STEP, num_bytes=int(gib * GIB))
    code, found = lines(capsys, f"--level={level}", step=step)
    assert code == (2 if verdict == "FAIL" else 0)
    assert found["memory"].startswith(verdict)
    assert found["memory"].endswith(text)


def test_values_of_images_that_are_here_are_measured(lines, capsys, tmp_path):
    values = np.linspace(0, 4, 16 * 32 * 32 * 2, dtype=np.float32)
    for i, image in enumerate(values.reshape(16, 32, 32, 2)):
        np.save(tmp_path / f"{i}.npy", image)
    compiled = []

    def step(*arguments):
        compiled.append(arguments)
        return STEP

    fields = {"data.path": tmp_path, "data.channels": 2, "augment.grayscale_prob": 0}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    code, _ = lines(
        capsys, *flags, "--config.data.batch_size=8", config="folder", step=step
    )
    assert code == 0
    ((spec, _, images, _),) = compiled
    assert images.dtype == "float32"
    assert spec.config.data.value_range == (0.0, 4.0)
    assert len(spec.config.augment.policy.mean) == 2


def test_figures_of_a_batch_in_parts_may_count_one_part(lines, capsys):
    code, found = lines(capsys, "--config.train.accumulate=2")
    assert code == 0
    assert (
        "40 GB moved on each device (of the 2 parts, the compiler may" in found["step"]
    )


def test_a_step_that_the_compiler_refuses_fails_with_what_it_wants(lines, capsys):
    def refused(*_):
        reason = f"RESOURCE_EXHAUSTED: {HBM}(20.50G) exceeds available HBM (15.75G)."
        return _refused(reason)

    code, found = lines(capsys, step=refused)
    assert code == 2
    assert found["memory"].startswith(
        "FAIL memory   the step needs 20.5 GiB of the 15.8"
    )
    assert "time" not in found


def test_a_fault_of_the_compiler_is_one_line_that_names_the_other_levels(
    lines, capsys, monkeypatch
):
    def fails(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect\nof many lines")

    monkeypatch.setattr(ahead, "lower_ahead", lambda *_: None)
    monkeypatch.setattr(ahead, "compile_at", fails)
    with pytest.raises(SystemExit) as end:
        lines(capsys, step=ahead.compile_ahead)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "v5e fails at level O0, which is a fault of the compiler" in line
    assert line.endswith("use --level=O1 or --level=default")


def test_a_product_without_a_tiling_is_compiled_without_triton(monkeypatch):
    tried = []

    def compile_at(lowered, level, **options):
        tried.append((lowered, level, options))
        if not options:
            raise jax.errors.JaxRuntimeError("INTERNAL: no output tile sizes")
        return "compiled"

    monkeypatch.setattr(ahead, "compile_at", compile_at)
    assert ahead._compiled("step", "O1") == "compiled"
    without = {"xla_gpu_enable_triton_gemm": False}
    assert tried == [("step", "O1", {}), ("step", "O1", without)]


def test_remedies_are_compiled_if_the_config_allows_them(lines, capsys):
    tried = []

    def compiled(spec, *_):
        config = spec.config
        tried.append((config.encoder.dtype, config.encoder.remat))
        tried.append((config.train.accumulate, config.data.batch_size))
        return STEP

    code, found = lines(capsys, "--remedies", step=compiled)
    assert code == 0
    assert tried == [
        *(("float32", False), (1, 512), ("bfloat16", False), (1, 512)),
        *(("float32", True), (1, 512), ("float32", False), (2, 512)),
        *(("float32", False), (1, 256)),
    ]
    assert "config.encoder.dtype=bfloat16: 3 GiB, 40 GB moved" in found["help"]


def test_bfloat16_has_a_lower_floor_by_products_on_a_gpu():
    target = Target(CHIPS["h100"], make_mesh(jax.devices()[:1]))
    by_memory, by_products = floor_seconds(STEP, target, "bfloat16")
    assert by_memory == pytest.approx(40 / 3350)
    assert by_products == pytest.approx(2 / 989)
    assert floor_seconds(STEP, target, "float32")[1] == pytest.approx(2 * by_products)


def test_images_are_kept_on_a_device_by_the_rule_of_a_run():
    spec = make_spec(configs.load("cifar10_moco").to_dict(), num_devices=1)
    target = Target(CHIPS["v5e"], make_mesh(jax.devices()[:1]))
    few = KnownImages(50_000, (32, 32), "uint8", 10, "")
    assert target_report.stored_bytes(spec, target, few) == 50_000 * 32 * 32 * 3
    many = dataclasses.replace(few, count=2_000_000)
    assert target_report.stored_bytes(spec, target, many) == 0


def test_images_whose_number_is_not_published_must_be_here():
    def missing():
        raise FileNotFoundError("caltech101 is not prepared")

    config = configs.load("cifar10_moco", {"data.name": "caltech101"}).to_dict()
    with pytest.raises(FileNotFoundError, match="caltech101 is not prepared"):
        ahead.known_images(parse(config).data, missing)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--config=cifar10_moco", "--target=v9"], "must be one of v4, v5e"),
        (["--config=cifar10_moco", "--target="], "must be one of v4, v5e"),
        (["--config=cifar10_moco", "--remedies"], "--remedies needs --target=DEVICES"),
        (["--config=nothing", "--target=v9"], "must be one of v4, v5e"),
        (["--data=photos", "--target=v5e"], "--target checks a config"),
    ],
)
def test_a_wrong_target_is_one_line(arguments, fragment, capsys):
    with pytest.raises(SystemExit) as stopped:
        doctor.main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fragment in line

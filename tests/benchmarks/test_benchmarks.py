"""Benchmarks at tiny sizes, and the Pillow operations that they compare with."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    canvas,
    input,
    knn,
    pillow_crops,
    reduced,
    scaling,
    step,
    transfer,
)
from tests.augment.specs import spec

_LEFT_AS_IT_IS = spec(flip_prob=0.0, jitter_prob=0.0, grayscale_prob=0.0)


def _noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


def _last_line(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    for i in range(2):
        (tmp_path / "class").mkdir(exist_ok=True)
        _noise(20 + i, 30).save(tmp_path / "class" / f"{i}.JPEG")
    return tmp_path


@pytest.mark.slow
def test_input_measures_every_stage_of_ours_and_of_pillow(folder, capsys):
    small = ["--images=2", "--canvas=16", "--global_size=12", "--local_size=12"]
    input.main([f"--folder={folder}", *small, "--rounds=1", "--no_step", "--all_cores"])
    report = _last_line(capsys.readouterr().out)
    stages = {row.pop("stage"): row for row in report["rows"]}
    assert set(stages) == {
        "decode",
        "decode and canvas",
        "crops",
        "color",
        "crops and color",
        "together",
    }
    assert set(stages.pop("decode and canvas")) == {"ours"}
    for row in stages.values():
        assert set(row) == {"ours", "pillow", "ratio"}
        assert all(np.isfinite(value) and value > 0 for value in row.values())


def test_a_folder_with_too_few_images_is_named_in_the_error(folder):
    with pytest.raises(ValueError, match="holds 2 images"):
        input.images_of(str(folder), 3)


def test_without_a_folder_images_are_the_photographs_at_imagenets_size():
    encoded = input.images_of("", 11)
    assert {pillow_crops.decode(image).size for image in encoded} == {(500, 375)}
    assert len(set(encoded)) == 10


@pytest.mark.slow
def test_canvas_reports_loss_and_cost_of_every_side_and_filter(capsys):
    few = ["--sides=64", "--filters=box", "--boxes=1", "--rounds=1", "--all_cores"]
    canvas.main(few)
    report = _last_line(capsys.readouterr().out)
    for table in ("500x375", "whole", "large"):
        for row in report[table]:
            assert (row["side"], row["filter"]) == (64, "box")
            assert row["ms"] > 0
            assert set(row["psnr"]) == set(canvas.CUTS)
            assert np.all(np.isfinite(list(row["psnr"].values())))
    assert [row["scaled"] for row in report["large"]] == [False, True]
    assert report["cuts"][0]["bytes"] == 64 * 64 * 3


def test_reduced_compares_the_files_with_both_formats(capsys):
    small = ["--size", "50", "40", "--canvases", "64", "--images=2"]
    reduced.main([*small, "--boxes=1", "--rounds=1"])
    rows = _last_line(capsys.readouterr().out)["rows"]
    assert [row["stored"] for row in rows] == ["files", "uint8", "jpeg"]
    files, pixels, jpeg = (row["psnr"]["area 1"][0] for row in rows)
    assert files == pixels > jpeg > 30  # 50 px are not reduced
    assert all(row["images/s"] > 0 and row["kB"] > 0 for row in rows)


def test_a_canvas_is_lossless_for_an_image_that_fits():
    fits = [canvas.Fit(64, "bilinear"), canvas.Fit(48, "bilinear")]
    found = canvas.decibels(_encoded(_noise(50, 64)), fits, count=2)
    for stored, scaled in zip(*(found[fit].values() for fit in fits), strict=True):
        assert min(stored) > 58.9
        assert max(scaled) < 40


def test_scaling_by_the_jpeg_decoder_does_not_shift_pixels():
    smooth = _noise(8, 8).resize((107, 107), Image.Resampling.BICUBIC)
    fits = [canvas.Fit(40, "bilinear", scaled) for scaled in (False, True)]
    found = canvas.decibels(_encoded(smooth), fits, count=2)
    by_pillow, by_jpeg = (found[fit]["area 1"][0] for fit in fits)
    assert by_jpeg > by_pillow - 3


def test_pillows_crop_is_its_box_normalized():
    picture = _noise(20, 30)
    (crop,) = pillow_crops.cut(picture, [(3, 11, 8, 8)], 8)
    finish = pillow_crops.to_array(_LEFT_AS_IT_IS)
    rng = np.random.default_rng(0)
    planes = pillow_crops.augment(crop, rng, _LEFT_AS_IT_IS, finish)
    inside = np.asarray(picture)[3:11, 11:19] / 255
    expected = (inside - _LEFT_AS_IT_IS.mean) / _LEFT_AS_IT_IS.std
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes, expected.transpose(2, 0, 1), atol=1e-6)


def test_pillows_jitter_of_strength_0_changes_nothing_and_hue_is_shifted():
    picture = Image.new("RGB", (4, 4), (200, 20, 20))
    same = pillow_crops.jitter(picture, np.random.default_rng(0), (0, 0, 0, 0))
    np.testing.assert_array_equal(same, picture)
    turned = np.asarray(pillow_crops.turn_hue(picture, -1 / 3))
    np.testing.assert_allclose(turned[0, 0], (20, 20, 200), atol=5)  # red becomes blue


def test_knn_reports_ours_its_product_and_the_tile_size(capsys):
    knn.main(["--bank=40", "--queries=5", "--dim=4", "--k=3", "--rounds=1"])
    report = _last_line(capsys.readouterr().out)
    assert report["tile_bytes"] == 256 * 10 * 4  # a quarter of the bank per device
    assert report["ours"]["over_ours"] == 1
    assert report["product"]["seconds"] >= 0


@pytest.mark.slow
def test_step_reports_flops_memory_speed_and_the_matrix_product(capsys):
    tiny = ["--backbone=resnet10", "--width=2", "--batch_size=8", "--product=128"]
    step.main([*tiny, "--methods=moco", "--kinds=two_crop", "--rounds=1"])
    row, others = _last_line(capsys.readouterr().out)["rows"]
    assert row["step"] == "moco two_crop"
    assert row["views_per_second"] == pytest.approx(2 * row["images_per_second"], 0.1)
    assert row["time_over_two_crops_per_flop"] == [1, 1, 1]
    assert row["gflops"] > 0
    assert row["mib"] > 0
    assert others["matrix_gflops"] > 0


@pytest.mark.slow
def test_transfer_compares_each_strength_with_the_best_and_with_scikit_learn():
    data = transfer.gaussian((60, 4, 3), condition=10.0)
    report = transfer.compare(*data, np.array([11, 22]), [1e-4, 1e-8])
    assert report["all_converged"]
    assert report["worst_gap"] < 1e-4
    assert report["worst_agreement"] > 0.98
    for row in report["rows"]:
        assert row["sklearn_as_close"]["gap"] <= row["sklearn"]["gap"] + 1e-12
        assert row["sklearn_as_close"]["gap"] < 1e-4


def test_scaling_counts_the_sum_of_the_gradients_on_every_device():
    fields = {
        "encoder.backbone": "resnet10",
        "encoder.width": 4,
        "batch_norm": "per_device",
        "data.batch_size": 4,
    }
    found = [
        scaling.exchanged(scaling.traced("cifar10_simsiam:baseline", fields, count))
        for count in (2, 4)
    ]
    assert found[0]["all-reduce"] == found[1]["all-reduce"] > 4 * 20_000

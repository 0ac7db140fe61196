"""The audit finds what is put in by hand, and nothing else."""

import dataclasses
import io
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from tfproject.data import audit, synthetic
from tfproject.data.image_set import BadImage, ImageSet, Origin, Split
from tfproject.errors import UserError

CLASSES = ("Highway", "Industrial")


@pytest.fixture(scope="module")
def tiles():
    """Eight tiles that show different things: the first four Highway, the others Industrial."""
    split = synthetic.land_cover(seed=8, per_class=4).splits["all"]
    return split.images[(split.labels == 3) | (split.labels == 4)]


def image_set(splits, bad_images=()):
    """An image set from {split: [(image, label), ...]}; images are named by split and number."""
    return ImageSet(
        name="hand-made",
        class_names=CLASSES,
        splits={
            name: Split(
                np.stack([image for image, _ in items]),
                np.array([label for _, label in items]),
                tuple(f"{name}/{i}.png" for i in range(len(items))),
            )
            for name, items in splits.items()
        },
        origin=Origin(description="made by hand", licence="none"),
        bad_images=bad_images,
    )


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def brighter(image):
    return np.clip(image.astype(int) + 8, 0, 255).astype(np.uint8)


def resized(image):
    return np.asarray(Image.fromarray(image).resize((69, 67), Image.Resampling.BILINEAR).resize((64, 64)))


def cropped(image):
    return np.asarray(Image.fromarray(image).crop((1, 1, 63, 63)).resize((64, 64)))


def names(group):
    return {image["name"] for image in group}


def test_a_clean_set(tiles):
    report = audit.audit(image_set({"train": [(x, i // 4) for i, x in enumerate(tiles[:6])], "test": [(tiles[6], 1)]}))
    assert report["images"] == 7 and report["image_size"] == [64, 64]
    assert report["counts"] == {"train": {"Highway": 4, "Industrial": 2}, "test": {"Highway": 0, "Industrial": 1}}
    assert report["totals"] == {"Highway": 4, "Industrial": 3} and report["imbalance_ratio"] == 1.333
    assert report["exact_duplicates"]["groups"] == report["near_duplicates"]["pairs"] == report["bad_image_count"] == 0
    assert report["conflicting_labels"] == {"groups": 0, "near_pairs": 0, "list": []}


def test_an_empty_class_has_no_ratio(tiles):
    report = audit.audit(image_set({"all": [(tiles[0], 0)]}))
    assert report["imbalance_ratio"] is None
    assert "a class is empty" in audit.to_text(report)


def test_exact_duplicates_within_and_across_splits(tiles):
    a, b, c, d = tiles[:4]
    report = audit.audit(image_set({"train": [(a, 0), (b, 0), (a, 0)], "test": [(c, 0), (b, 0), (d, 0), (b, 0)]}))
    exact = report["exact_duplicates"]
    assert (exact["groups"], exact["images"], exact["across_splits"]) == (2, 3, 1)
    assert [names(group) for group in exact["list"]] == [
        {"train/0.png", "train/2.png"},
        {"train/1.png", "test/1.png", "test/3.png"},
    ]
    assert report["near_duplicates"]["pairs"] == 0 and report["conflicting_labels"]["groups"] == 0


@pytest.mark.parametrize("change", [jpeg, brighter, resized, cropped])
def test_near_duplicates(tiles, change):
    changed = change(tiles[2])
    assert not np.array_equal(changed, tiles[2])
    train = [(x, 0) for x in tiles[:4]]
    across = audit.audit(image_set({"train": train, "test": [(tiles[5], 0), (changed, 0)]}))["near_duplicates"]
    assert (across["pairs"], across["across_splits"]) == (1, 1)
    assert names(across["list"][0]["images"]) == {"train/2.png", "test/1.png"}
    within = audit.audit(image_set({"train": [*train, (changed, 0)]}))["near_duplicates"]
    assert (within["pairs"], within["across_splits"]) == (1, 0)


def test_conflicting_labels_exact_and_near(tiles):
    a, b, c = tiles[:3]
    report = audit.audit(image_set({"train": [(a, 0), (b, 0), (c, 0)], "test": [(a, 1), (jpeg(b), 1), (jpeg(c), 0)]}))
    conflicts = report["conflicting_labels"]
    assert (conflicts["groups"], conflicts["near_pairs"]) == (1, 1)
    assert [names(group) for group in conflicts["list"]] == [
        {"train/0.png", "test/0.png"},
        {"train/1.png", "test/1.png"},
    ]
    assert {image["class"] for image in conflicts["list"][0]} == set(CLASSES)


def test_three_hundred_different_tiles_have_no_near_duplicates():
    report = audit.audit(synthetic.land_cover(seed=1, per_class=30))["near_duplicates"]
    assert report["pairs"] == 0
    assert report["too_even_to_compare"] < 60  # at most the sea and the pastures


def test_even_images_are_counted_and_not_compared():
    rng = np.random.default_rng(0)
    sea = [(rng.integers(90, 93, (64, 64, 3), dtype=np.uint8), 0) for _ in range(20)]
    near = audit.audit(image_set({"all": sea}))["near_duplicates"]
    assert (near["pairs"], near["too_even_to_compare"]) == (0, 20)


def test_the_same_hash_is_not_enough(tiles):
    """A very different contrast curve keeps nearly all the signs, and not the pixels."""
    twin = (255 * (tiles[6] / 255.0) ** 5).astype(np.uint8)
    hashes = audit.perceptual_hashes(audit.thumbnails(np.stack([tiles[6], twin])))
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= audit.MAX_HASH_DISTANCE
    assert audit.audit(image_set({"all": [(tiles[6], 0), (twin, 0)]}))["near_duplicates"]["pairs"] == 0


def test_thumbnails_average_areas():
    image = np.zeros((1, 48, 80, 3), np.uint8)
    image[:, :, 40:] = 200
    small = audit.thumbnails(image)
    assert small.shape == (1, 32, 32)
    np.testing.assert_allclose(small[0, :, :16], 0, atol=1e-3)
    np.testing.assert_allclose(small[0, :, 16:], 200, atol=1e-3)
    noise = np.random.default_rng(0).integers(0, 256, (1, 50, 45, 3), dtype=np.uint8)
    grey = noise[0] @ np.array([0.299, 0.587, 0.114])
    assert audit.thumbnails(noise).mean() == pytest.approx(grey.mean(), abs=0.01)


def test_bad_images_are_listed(tiles):
    bad = tuple(BadImage(f"{i}.jpg", "not an image") for i in range(15))
    report = audit.audit(image_set({"all": [(tiles[0], 0)]}, bad))
    assert report["bad_image_count"] == 15
    assert report["bad_images"][3] == {"name": "3.jpg", "reason": "not an image"}
    text = audit.to_text(report)
    assert "9.jpg: not an image" in text and "10.jpg" not in text and "and 5 more" in text


def test_lists_are_capped_and_counts_are_not(tiles, monkeypatch):
    monkeypatch.setattr(audit, "LIST_LIMIT", 2)
    copies = [(x, 0) for x in tiles for _ in range(2)]
    exact = audit.audit(image_set({"all": copies}))["exact_duplicates"]
    assert exact["groups"] == 8 and len(exact["list"]) == 2
    assert len(audit.audit(image_set({"all": copies}), all_duplicates=True)["exact_duplicates"]["list"]) == 8


def test_a_search_that_ends_early_says_so(tiles, monkeypatch):
    monkeypatch.setattr(audit, "PAIR_LIMIT", 3)
    monkeypatch.setattr(audit, "PAIRS_AT_ONCE", 4)
    frames = [(np.clip(tiles[0].astype(int) + i, 0, 255).astype(np.uint8), 0) for i in range(8)]
    report = audit.audit(image_set({"all": frames}))
    assert not report["near_duplicates"]["complete"]
    assert 3 <= report["near_duplicates"]["pairs"] < 3 + 4  # of 28
    assert "at least" in audit.to_text(report)


def test_the_report_is_json_and_text(tiles):
    splits = {"train": [(tiles[0], 0), (tiles[1], 0)], "test": [(tiles[0], 1), (jpeg(tiles[1]), 0)]}
    report = audit.audit(image_set(splits, (BadImage("x.jpg", "an empty file"),)))
    assert json.loads(json.dumps(report)) == report
    text = audit.to_text(report)
    rows = [line.split() for line in text.splitlines() if line.startswith((*CLASSES, "class ", "total"))]
    table = {row[0]: row[1:] for row in rows}
    assert table == {
        "class": ["train", "test", "total"],
        "Highway": ["2", "1", "3"],
        "Industrial": ["0", "1", "1"],
        "total": ["2", "2", "4"],
    }
    assert "4 images of 64x64 pixels in 2 classes" in text and "x.jpg: an empty file" in text
    assert "train/0.png (train, Highway) = test/0.png (test, Industrial)" in text
    assert "near duplicates: 1 pairs, 1 across splits" in text


def test_twenty_thousand_images_take_a_few_seconds():
    """EuroSAT's 27,000 in proportion: three quarters of the images are half the pairs, within half of 20 seconds."""
    images = np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8)
    images[19_000] = images[5]
    images[19_000, 0, 0] ^= 8
    start = time.perf_counter()
    pairs, _ = audit._near_pairs([images[:12_000], images[12_000:]], set())
    assert [pair[:2] for pair in pairs] == [(5, 19_000)]
    assert time.perf_counter() - start < 10


def test_audit_files_reads_headers(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "a" / "1.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "a" / "2.JPG", "JPEG")
    Image.new("CMYK", (40, 30)).save(tmp_path / "a" / "3.jpg")
    Image.new("L", (8, 9)).save(tmp_path / "4.png")
    (tmp_path / "5.jpg").write_text("<html>")
    (tmp_path / "6.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    os.mkfifo(tmp_path / "7.jpg")
    found = audit.audit_files(tmp_path)
    assert found["files"] == 7
    assert found["sizes"] == {"40x30": 3, "8x9": 1}
    assert found["modes"] == {"RGB": 2, "L": 1, "CMYK": 1}
    assert found["formats"] == {"JPEG": 3, "PNG": 1}
    assert {bad["name"] for bad in found["unreadable"]} == {"5.jpg", "6.png", "7.jpg"}
    assert found["unreadable"][2]["reason"] == "not a regular file"
    with pytest.raises(UserError, match="is not a folder"):
        audit.audit_files(tmp_path / "4.png")


def test_as_many_bad_images_are_named_as_asked_for(tiles):
    bad = tuple(BadImage(f"{i}.png", "damaged") for i in range(12))
    report = audit.audit(dataclasses.replace(image_set({"all": [(tiles[0], 0)]}), bad_images=bad))
    assert "9.png: damaged\n  and 2 more" in audit.to_text(report) and "10.png" not in audit.to_text(report)
    assert "11.png: damaged\nexact" in audit.to_text(report, most_bad=audit.LIST_LIMIT)


def test_the_text_shows_the_files(tiles):
    report = audit.audit(image_set({"all": [(tiles[0], 0)]}))
    report["files"] = {"files": 3, "sizes": {"40x30": 3}, "modes": {"RGB": 2, "L": 1}, "formats": {"JPEG": 3}}
    text = audit.to_text(report)
    assert "files: 3" in text and "modes: RGB (2), L (1)" in text

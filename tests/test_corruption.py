"""Corruptions against arrays that other people's programs made of the same images.

`corruption_reference.npz` holds, of two synthetic pictures and of all corruptions at
severities 1 to 5, every fourth pixel in each direction of

- "imagenet_c": what imagecorruptions-imaug 1.1.5 makes of a 48x56 picture;
- "cifar_c": what the functions of `make_cifar_c.py` (hendrycks/robustness 8190fe3) make
  of a 32x32 picture, with scikit-image 0.26 and OpenCV 5.0;

after `np.random.seed(severity)`. Their frost photographs were replaced by `photographs`
and drawn from five; `skimage.util.random_noise` was given the severity as its seed; the
loop of glass_blur ran as plain Python; ImageMagick's motion blur was that of
imagecorruptions, rounded. `Replay` gives our code the very same random numbers.
"""

import pathlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from spaced_kd import corruption
from spaced_kd.corruption import CONSTANTS, CORRUPTIONS, PAPER, corrupt, corrupt_all
from spaced_kd.corruption.frost_photos import FILES, scaled_photos
from spaced_kd.corruption.zoom import zoom_matrix
from spaced_kd.errors import ConfigError, DataError

REFERENCE = np.load(pathlib.Path(__file__).with_name("corruption_reference.npz"))
SEVERITIES = range(1, 6)
BOTH = list(CONSTANTS)
NUMBERS = np.random.default_rng(0)
PHOTO = REFERENCE["cifar_c_image"]

# Greatest difference, in grey levels. 1: other rounding just above or below a whole
# level, before both round down.
LARGEST = dict.fromkeys(CORRUPTIONS, 0) | {
    "defocus_blur": 1,
    "motion_blur": 1,
    "snow": 1,
    "brightness": 1,
    "fog": 1,
    # libjpeg versions may differ in the last bit; the one at hand gives 0.
    "jpeg_compression": 1,
}
# CIFAR-C cuts enlarged flakes to size before it smears them; see `snow`.
OTHER_FLAKES = [("cifar_c", "snow", 3), ("cifar_c", "snow", 4)]


class Replay:
    """The random numbers of NumPy's old global generator, as a Generator gives them."""

    def __init__(self, seed):
        self._old = np.random.RandomState(seed)
        self.normal, self.uniform = self._old.normal, self._old.uniform
        self.poisson = self._old.poisson
        # scikit-image draws from a new Generator.
        self.random = np.random.default_rng(seed).random

    def integers(self, low, high=None, size=None):
        return self._old.randint(low, high, size)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of five pictures with the names of the frost photographs."""
    folder = tmp_path_factory.mktemp("frost")
    old = np.random.RandomState(7)
    shapes = ((300, 325), (315, 360), (320, 300), (350, 330), (305, 310))
    for name, shape in zip(FILES, shapes, strict=True):
        pixels = old.randint(0, 256, (*shape, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, format="PNG")
    return str(folder)


def by_us(constants, name, severity, photographs=""):
    image = REFERENCE[f"{constants}_image"]
    return corrupt(image, name, severity, constants, Replay(severity), photographs)


@pytest.mark.parametrize("constants", BOTH)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_published_programs(name, constants, photographs):
    """With the same random numbers every severity gives their image."""
    expected = REFERENCE[constants][list(CORRUPTIONS).index(name)].astype(int)
    for severity in SEVERITIES:
        if (constants, name, severity) in OTHER_FLAKES:
            continue
        found = by_us(constants, name, severity, photographs)[::4, ::4]
        assert np.abs(found - expected[severity - 1]).max() <= LARGEST[name], severity


@pytest.mark.parametrize("severity", [3, 4])
def test_other_flakes_cover_as_much(severity):
    """Where flakes lie elsewhere than in the reference, snow whitens it as much."""
    expected = REFERENCE["cifar_c"][list(CORRUPTIONS).index("snow"), severity - 1]
    draws = [
        corrupt(PHOTO, "snow", severity, "cifar_c", np.random.default_rng(seed))
        for seed in range(64)
    ]
    means = np.stack(draws)[:, ::4, ::4].mean(axis=(1, 2, 3))
    assert abs(expected.mean() - means.mean()) < 3 * means.std()


def test_papers_severities():
    """The six corruptions have the constants of imagecorruptions 1.1.2."""
    used = {name: CONSTANTS["imagenet_c"][name] for name in PAPER}
    assert used["impulse_noise"] == ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,))
    assert used["jpeg_compression"] == ((25,), (18,), (15,), (10,), (7,))
    assert used["brightness"] == ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))
    assert used["snow"][4] == (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)
    assert used["zoom_blur"][4] == (1.31, 0.03)
    assert [mix[:2] for mix in used["frost"]] == [
        (1, 0.4),
        (0.8, 0.6),
        (0.7, 0.7),
        (0.65, 0.7),
        (0.6, 0.75),
    ]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 11, 3), (64, 40, 3), (33, 33, 1)])
@pytest.mark.parametrize("constants", BOTH)
def test_any_image(shape, constants):
    """Grey, oblong and tiny images come back with their shape, changed."""
    image = NUMBERS.integers(0, 256, shape).astype(np.uint8)
    kept = image.copy()
    for name in CORRUPTIONS:
        found = corrupt(image, name, 5, constants, np.random.default_rng(0))
        assert found.shape == shape and found.dtype == np.uint8, name
        assert (found != image).any(), name
        np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("constants", BOTH)
@pytest.mark.parametrize("name", PAPER)
def test_severities_grow(name, constants):
    """Each of the paper's corruptions moves images further at a higher severity."""
    images = np.stack([np.roll(PHOTO, k, axis=1) for k in range(8)])
    distances = [
        np.abs(corrupt_all(images, name, s, constants, 0).astype(int) - images).mean()
        for s in (1, 3, 5)
    ]
    assert distances == sorted(distances)


@pytest.mark.parametrize(
    ("constants", "severity", "share"), [("imagenet_c", 5, 0.27), ("cifar_c", 3, 0.03)]
)
def test_share_of_impulses(constants, severity, share):
    """That share of the values is set, half of it to 255, in each channel alone."""
    image = np.full((200, 200, 3), 100, np.uint8)
    rng = np.random.default_rng(1)
    found = corrupt(image, "impulse_noise", severity, constants, rng)
    slack = 4 * np.sqrt(share * (1 - share) / image.size)
    assert abs((found != 100).mean() - share) < slack
    assert abs((found == 255).mean() - share / 2) < slack
    assert set(np.unique(found)) == {0, 100, 255}
    whole = (found != 100).all(axis=2).mean()
    assert abs(whole - share**3) < 4 * np.sqrt(share**3 / 40_000)


def test_spread_of_noise():
    """Gaussian noise has the s.d. of its severity; shot noise that of the counts."""
    image = np.full((300, 300, 1), 128, np.uint8)
    rng = np.random.default_rng(2)
    gaussian = corrupt(image, "gaussian_noise", 1, "imagenet_c", rng) / 255
    # Rounding down adds a uniform variable of s.d. 1 / sqrt(12) levels.
    expected = np.hypot(0.08, 1 / 255 / np.sqrt(12))
    assert gaussian.std() == pytest.approx(expected, rel=0.02)
    shot = corrupt(image, "shot_noise", 1, "imagenet_c", rng) / 255
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 60), rel=0.02)
    assert shot.mean() == pytest.approx((128 - 0.5) / 255, abs=0.002)


@pytest.mark.parametrize("side", [8, 31, 32, 224])
@pytest.mark.parametrize("factor", [1.0, 1.01, 1.26, 2.25, 4.5])
def test_zoom_is_scipys(side, factor):
    """The matrix enlarges the middle of a line as scipy.ndimage.zoom does."""
    line = NUMBERS.random(side)
    middle = int(np.ceil(side / factor))
    start = (side - middle) // 2
    expected = ndimage.zoom(line[start : start + middle], factor, order=1)
    found = zoom_matrix(side, factor) @ line
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_own_frost():
    """Made pictures have the colours of the photographs, all over the picture."""
    photos = scaled_photos("", 1.1)
    means = [photo.mean(axis=(0, 1)).round() for photo in photos]
    np.testing.assert_allclose(means[0], (78, 149, 166), atol=1)
    np.testing.assert_allclose(means[4], (112, 123, 135), atol=1)
    assert photos[3].std(axis=(0, 1)) == pytest.approx([28, 28, 30], abs=1)
    pieces = photos[3][:544, :544].reshape(17, 32, 17, 32, 3).std(axis=(1, 3))
    # Of a photograph with that s.d. such pieces had 21 in the mean.
    assert 14 < pieces.mean() < 28


def test_an_image_alone():
    """What an image becomes does not depend on which images lie beside it."""
    images = NUMBERS.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    order = NUMBERS.permutation(40)
    for name in ("impulse_noise", "frost"):
        whole = corrupt_all(images, name, 3, "imagenet_c", 0)
        shuffled = corrupt_all(images[order], name, 3, "imagenet_c", 0)
        np.testing.assert_array_equal(shuffled, whole[order])
        some = corrupt_all(images[7:9], name, 3, "imagenet_c", 0)
        np.testing.assert_array_equal(some, whole[7:9])


def test_threads(monkeypatch):
    """Several threads make the images that one makes."""
    images = NUMBERS.integers(0, 256, (37, 16, 16, 3)).astype(np.uint8)
    alone = corrupt_all(images, "elastic_transform", 5, "cifar_c", 3)
    monkeypatch.setattr("spaced_kd.corruption._WORTH_A_THREAD", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    together = corrupt_all(images, "elastic_transform", 5, "cifar_c", 3)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("other", [("snow", 3, 1), ("snow", 1, 0), ("frost", 3, 0)])
def test_independent_draws(other):
    """Another seed, severity, corruption or image draws other random numbers."""

    def draw(name, severity, seed, image=PHOTO):
        key = f"{seed}/{name}/{severity}".encode()
        return corruption._generator(image, key).random()

    assert draw("snow", 3, 0) == draw("snow", 3, 0) != draw(*other)
    assert draw("snow", 3, 0) != draw("snow", 3, 0, PHOTO[::-1])


def test_seeds_reach_the_draws():
    """The seed and the severity that are given are those that draw."""
    images = PHOTO[None]
    first = corrupt_all(images, "gaussian_noise", 3, "cifar_c", 0)
    again = corrupt_all(images, "gaussian_noise", 3, "cifar_c", 0)
    other = corrupt_all(images, "gaussian_noise", 3, "cifar_c", 1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_mistakes(tmp_path):
    """Unknown names, severities, images and folders are told in a line."""
    rng = np.random.default_rng(0)
    for arguments, match in (
        (("snowe", 1, "cifar_c"), "did you mean 'snow'"),
        (("snow", 6, "cifar_c"), "severity=6 is unknown; give 1 to 5"),
        (("snow", 1, "cifar"), "did you mean 'cifar_c'"),
    ):
        with pytest.raises(ConfigError, match=match):
            corrupt(PHOTO, *arguments, rng)
    for bad in (PHOTO[:7], PHOTO.astype(float), PHOTO[..., :2], PHOTO[..., 0]):
        with pytest.raises(DataError, match="cannot be corrupted; it must be uint8"):
            corrupt(bad, "snow", 1, "cifar_c", rng)
    with pytest.raises(DataError, match="frost1.png cannot be read"):
        corrupt(PHOTO, "frost", 1, "cifar_c", rng, str(tmp_path))

"""How strong each corruption is: two published sets of constants, five severities each.

"imagenet_c": of ImageNet-C, which the package imagecorruptions applies to images of any
size (C. Michaelis et al., "Benchmarking Robustness in Object Detection", 2019) and with
it the paper's Tables 5 and 12. "cifar_c": of CIFAR-10-C and CIFAR-100-C (D. Hendrycks
and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", 2019), whose file `make_cifar_c.py` they are taken from. On the same
32x32 image the first set is far stronger: Gaussian noise of s.d. 0.08 to 0.38 instead
of 0.04 to 0.10.
"""

Severities = tuple[tuple[float, ...], ...]
"""The constants of a corruption at severities 1 to 5."""

PAPER = (
    "impulse_noise",
    "zoom_blur",
    "snow",
    "frost",
    "jpeg_compression",
    "brightness",
)
"""The corruptions of the paper's Tables 5 and 12, in their order."""

_ENLARGED, _SHRUNK = 1.1, 0.2

CONSTANTS: dict[str, dict[str, Severities]] = {
    "imagenet_c": {
        "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
        "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": (
            (1.11, 0.01),
            (1.16, 0.01),
            (1.21, 0.02),
            (1.26, 0.02),
            (1.31, 0.03),
        ),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": (
            (1, 0.4, _ENLARGED),
            (0.8, 0.6, _ENLARGED),
            (0.7, 0.7, _ENLARGED),
            (0.65, 0.7, _ENLARGED),
            (0.6, 0.75, _ENLARGED),
        ),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        # imagecorruptions moves no corners, which ImageNet-C did.
        "elastic_transform": (
            (0.0625, 0.01, 0),
            (0.08125, 0.01, 0),
            (0.10625, 0.01, 0),
            (0.125, 0.01, 0),
            (0.15, 0.01, 0),
        ),
        "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
    },
    "cifar_c": {
        "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.1,)),
        "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
        "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": (
            (0.05, 1, 1),
            (0.25, 1, 1),
            (0.4, 1, 1),
            (0.25, 1, 2),
            (0.4, 1, 2),
        ),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": (
            (1.06, 0.01),
            (1.11, 0.01),
            (1.16, 0.01),
            (1.21, 0.01),
            (1.26, 0.01),
        ),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": (
            (1, 0.2, _SHRUNK),
            (1, 0.3, _SHRUNK),
            (0.9, 0.4, _SHRUNK),
            (0.85, 0.4, _SHRUNK),
            (0.75, 0.45, _SHRUNK),
        ),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        "elastic_transform": (
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
    },
}
"""Set -> corruption -> constants; what they mean is in each corruption's docstring."""

"""What is compared: every registered network, and what its options change."""

CLASSES = 7

CASES = {
    "mlp": ("mlp", (8, 8, 3), {}),
    "small_cnn": ("small_cnn", (16, 16, 3), {}),
    "small_cnn_branches": ("small_cnn_branches", (16, 16, 3), {}),
    "resnet8": ("resnet8", (32, 32, 3), {}),
    "resnet20": ("resnet20", (32, 32, 3), {}),
    "resnet32": ("resnet32", (16, 16, 3), {}),
    "resnet56": ("resnet56", (16, 16, 3), {}),
    "resnet110": ("resnet110", (16, 16, 3), {}),
    "resnet18": ("resnet18", (32, 32, 3), {}),
    "resnet34": ("resnet34", (16, 16, 3), {}),
    "resnet50": ("resnet50", (24, 24, 3), {}),
    "resnet101": ("resnet101", (32, 32, 3), {}),
    "resnet18_branches": ("resnet18_branches", (32, 32, 3), {}),
    "resnet50_branches": ("resnet50_branches", (16, 24, 3), {}),
    "resnet101_branches": ("resnet101_branches", (32, 32, 3), {}),
    "resnet18_bottlenecks": (
        "resnet18_branches",
        (16, 24, 3),
        {"branch": "bottleneck"},
    ),
    "resnet18_imagenet_stem": ("resnet18", (64, 64, 3), {"stem": "imagenet"}),
    "resnet50_imagenet_stem": ("resnet50", (64, 64, 3), {"stem": "imagenet"}),
    "resnet18_x2": ("resnet18", (16, 16, 3), {"param_factor": 2.0}),
    "resnet18_x4": ("resnet18", (16, 16, 3), {"param_factor": 4.0}),
    "resnet18_x8": ("resnet18", (16, 16, 3), {"param_factor": 8.0}),
    "deit_tiny": ("deit_tiny", (64, 64, 3), {}),
    "deit_tiny_patch4": ("deit_tiny", (32, 32, 3), {"patch_size": 4}),
    "deit_tiny_distilled": ("deit_tiny_distilled", (32, 48, 3), {}),
    "deit_tiny_branches": ("deit_tiny_branches", (32, 48, 3), {}),
    "pit_tiny": ("pit_tiny", (64, 64, 3), {}),
    "pit_tiny_branches": ("pit_tiny_branches", (48, 64, 3), {}),
    "pit_tiny_patch4": ("pit_tiny", (16, 24, 3), {"patch_size": 4}),
}
"""Name -> model, [H, W, C], fields of ArchConfig that are not at their default."""

SLOW = {"resnet110", "resnet101", "resnet18_x4", "resnet18_x8"}
SLOW |= {"resnet50_branches", "resnet101_branches"}


def thin(features):
    """Return at most 256 features of each image, evenly spaced, to keep the file small.

    Those of branches count as features of one image.

    None is lost to the comparison: the logits read them all.
    """
    features = features.reshape(len(features), -1)
    return features[:, :: -(-features.shape[1] // 256)]

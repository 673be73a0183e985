"""Architectures: one family a file, one line here."""

from spaced_kd import registry
from spaced_kd.models import mlp, resnet, small_cnn
from spaced_kd.models.base import Model

MODELS = {
    "mlp": mlp.MLP,
    "small_cnn": small_cnn.SmallCNN,
    "resnet8": resnet.resnet8,
    "resnet20": resnet.resnet20,
    "resnet18": resnet.resnet18,
}


def make_model(name: str, num_classes: int) -> Model:
    """Return the network that `name` names.

    Raises:
      ConfigError: unknown name.
    """
    return registry.lookup(MODELS, name, "model")(num_classes=num_classes)

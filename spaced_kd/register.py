"""Models, data sets, methods and analyses of one's own, without editing the package.

    from spaced_kd import register

    register.model("my_cnn", MyCNN)
    register.arrays("my_data", train=(images, labels), test=(images, labels))
    register.method("my_kd", make)

Afterwards configs may say the names, in this process. In a module of its own, named in
`config.imports`, every process that opens the run knows them. A name that another
function or class has already is refused; the same one may come again, so that a
notebook's cell may run twice.
"""

from collections.abc import Callable
from typing import Any

from spaced_kd import analysis as analyses
from spaced_kd import data, fields, methods, models, registry, trial
from spaced_kd.analysis.base import Analysis
from spaced_kd.config import NO_TEACHER, DataConfig, MethodConfig
from spaced_kd.data.arrays import from_arrays
from spaced_kd.errors import ConfigError
from spaced_kd.methods.base import Method, Sizes
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Dataset


def model(
    name: str,
    family: Callable[..., Model],
    *,
    image_shape: tuple[int, int, int] = (32, 32, 3),
) -> None:
    """Let `teacher.model` and `student.model` name a network.

    It is tried on two images without computing anything, in training and in evaluation.

    Args:
      name: letters, digits and '_'.
      family: a subclass of `spaced_kd.models.base.Model`, or a `functools.partial` of
        one, which gives its own options. Fields that `ArchConfig` has too are options
        of the config. `spaced_kd.layers` has layers that heed devices and padding.
      image_shape: (height, width, channels) of the images it is tried on.

    Raises:
      ConfigError: the name is taken, or the network is not what a run can train.
    """
    at = f"model '{name}'"
    trial.check_model(at, family, image_shape)
    _add(models.MODELS, name, family, at)


def dataset(name: str, load: Callable[[DataConfig], Dataset]) -> None:
    """Let `config.data.name` name a data set.

    Args:
      name: letters, digits and '_'.
      load: called with the config's `data` when a run starts; returns the whole data
        set. Subsets, fingerprint and all checks are the package's.

    Raises:
      ConfigError: the name is taken, or `load` is not a function of one argument.
    """
    at = f"data set '{name}'"
    trial.check_arguments(at, load, "config")
    _add(data.DATASETS, name, load, at)


def arrays(
    name: str,
    *,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
) -> None:
    """Let `config.data.name` name a data set that lies in memory.

    Pixels are normalised with the training images' mean and standard deviation.

    Args:
      name: letters, digits and '_'.
      train: (images, labels): [N, H, W, C] or [N, H, W] uint8, and [N] integers 0 to
        C-1, of which every class occurs; what `numpy.asarray` takes.
      test: likewise, of the same shape and classes.

    Raises:
      ConfigError: the name is taken.
      DataError: the arrays are of another kind; says how to get the right one.
    """
    whole = from_arrays(name, train, test)

    def load(config: DataConfig) -> Dataset:
        del config
        return whole

    dataset(name, load)


def method(name: str, make: Callable[[MethodConfig, BatchAxis, Sizes], Method]) -> None:
    """Let `student.method` and `teacher.method` name a distillation method.

    Its loss is tried on a batch without computing anything. Kinds that a run's plan
    must know of beforehand (without a teacher, with branches, with a peer, with a head
    of its own) belong into the package: `spaced_kd/config/names.py`.

    Args:
      name: letters, digits and '_'.
      make: see `spaced_kd.methods.base.Method` and docs/add_a_method.md.

    Raises:
      ConfigError: the name is taken, or the method is not what a run can train with.
    """
    at = f"method '{name}'"
    trial.check_method(at, make)
    _add(methods.METHODS, name, make, at)


def analysis(name: str, one: Analysis) -> None:
    """Let `python -m spaced_kd.analyze --analyses` name an analysis.

    Args:
      name: letters, digits and '_'.
      one: see `spaced_kd.analysis.base.Analysis` and docs/analyses.md.

    Raises:
      ConfigError: the name is taken, or it is not an analysis.
    """
    at = f"analysis '{name}'"
    if not isinstance(one, Analysis):
        raise ConfigError(
            f"{at} is a {type(one).__name__}; give a spaced_kd.analysis.base.Analysis."
        )
    trial.tried(at, "its own defaults", lambda: fields.to_config_dict(one.options))
    _add(analyses.ANALYSES, name, one, at)


def _add(table: registry.Open, name: str, thing: Any, at: str) -> None:
    if not name.isidentifier():
        raise ConfigError(f"{at}: a name is made of letters, digits and '_'.")
    taken = name in table and _origin(table[name]) != _origin(thing)
    if taken or name == NO_TEACHER:
        raise ConfigError(f"{at} is there already; choose another name.")
    table[name] = thing


def _origin(thing: Any) -> tuple[str, str]:
    """Return where the code of an entry stands, which a cell run again has again."""
    code = getattr(thing, "measure", getattr(thing, "func", thing))
    return code.__module__, code.__qualname__

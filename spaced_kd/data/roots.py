"""Where data sets lie."""

import os
from pathlib import Path

from spaced_kd.config import DataConfig


def data_root(config: DataConfig) -> Path:
    """Return the folder that holds prepared data sets.

    Args:
      config: `dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    default = "~/tensorflow_datasets"
    chosen = config.dir or os.environ.get("TFDS_DATA_DIR") or default
    return Path(os.path.expanduser(chosen))

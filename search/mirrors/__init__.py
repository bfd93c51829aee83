"""Copies of the ledger for other tools: the Optuna study and the MLflow runs.

Each copy can be deleted and made again. Optuna's storage and MLflow are imported here alone. It knows `report` and
`front`. Begin with `_sync.py`. Another tracker is one file here.
"""

from ._mlflow import MlflowMirror
from ._mlflow_children import axes_of, children_of
from ._optuna import OptunaMirror
from ._sync import Mirrors

__all__ = ["Mirrors", "MlflowMirror", "OptunaMirror", "axes_of", "children_of"]

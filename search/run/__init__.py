"""The folder of a run: its ledger, the state that the ledger spells out, and the recorder that writes it.

The ledger is the one truth of a run. Everything else can be made again from it. It knows `task` and `values`.
Begin with `_ledger.py` and `_state.py`. A new kind of record belongs in `_state.py`.
"""

from ._assemble_table import Guess, Key, assemble
from ._facts import limits_from, objectives_from
from ._gc_frozen import collector_off, freeze_gc, gc_frozen
from ._hypervolume import front_hypervolume
from ._ledger import Ledger, decode, encode, read, write_atomic
from ._paths import store_path
from ._perturbations import frame_record, perturbations_of
from ._progress import Listener, Stopwatch
from ._recorder import Recorder
from ._run import StoredRun, create_run, new_run_path, read_run
from ._state import State

__all__ = [
    "Guess",
    "Key",
    "Ledger",
    "Listener",
    "Recorder",
    "State",
    "Stopwatch",
    "StoredRun",
    "assemble",
    "collector_off",
    "create_run",
    "decode",
    "encode",
    "frame_record",
    "freeze_gc",
    "front_hypervolume",
    "gc_frozen",
    "limits_from",
    "new_run_path",
    "objectives_from",
    "perturbations_of",
    "read",
    "read_run",
    "store_path",
    "write_atomic",
]

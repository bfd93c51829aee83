"""The folder of a run: its ledger, the state that the ledger spells out, and the recorder that writes it.

The ledger is the one truth of a run. Everything else can be made again from it. It knows `task` and `values`.
Begin with `_ledger.py` and `_state.py`. A new kind of record belongs in `_state.py`, a new fact in `_facts.py`.
"""

from ._assemble_table import Guess, Key, assemble
from ._facts import RunFacts
from ._gc_frozen import collector_off, freeze_gc, gc_frozen
from ._hypervolume import front_hypervolume
from ._ledger import Ledger, decode, encode, read, write_atomic
from ._paths import store_path
from ._perturbations import frame_record, perturbations_of
from ._progress import Listener, Stopwatch
from ._recorder import LedgerRecorder, MemoryRecorder, Recorder
from ._run import StoredRun, create_run, new_run_path, read_run
from ._schema import SCHEMA_VERSION
from ._state import State, Verdict

__all__ = [
    "SCHEMA_VERSION",
    "Guess",
    "Key",
    "Ledger",
    "LedgerRecorder",
    "Listener",
    "MemoryRecorder",
    "Recorder",
    "RunFacts",
    "State",
    "Stopwatch",
    "StoredRun",
    "Verdict",
    "assemble",
    "collector_off",
    "create_run",
    "decode",
    "encode",
    "frame_record",
    "freeze_gc",
    "front_hypervolume",
    "gc_frozen",
    "new_run_path",
    "perturbations_of",
    "read",
    "read_run",
    "store_path",
    "write_atomic",
]

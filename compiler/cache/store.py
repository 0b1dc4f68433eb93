"""One entry of the cache, for one compilation: a record of the graph, and its programs as text and tensors."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from altprop.compiler.cache.cache_folder import Folder, folder_of_environment
from altprop.compiler.cache.fingerprint import NotToldError
from altprop.compiler.cache.key import Asked, key_of
from altprop.compiler.cache.record import Record, RecordError, parse_record, record_of
from altprop.ir.alternate import SUFFIX
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import ProgramError, VerifyError
from altprop.ir.fakes import Fakes
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Fed, Linearized, Programs, Updated
from altprop.ir.local import LocalGraph
from altprop.ir.on_demand import OnDemand
from altprop.ir.optimizers import Optimizer
from altprop.ir.program import Program, Slot
from altprop.ir.program_laws import verify_program
from altprop.ir.program_text import format_program, parse_program
from altprop.ir.size_text import TextError

log = logging.getLogger("altprop.cache")

Derive = Callable[[], ErrorGraph]
_RECORD = "graph.json"
LOSS = Slot("loss", "loss")


def open_store(captured: CapturedGraph, asked: Callable[[], Asked], facts: BatchFacts) -> "Store | None":
    """Returns the entry of a compilation; None where there is no cache, or where it cannot be told what it depends on.

    Args:
        captured: the captured graph.
        asked: returns what the compilation is asked for.
        facts: what was asked of the size of the batch; more may come.
    """
    folder = folder_of_environment()
    if folder is None:
        return None
    try:
        wanted = asked()
        return Store(folder, key_of(captured, wanted), captured, wanted.optimizer, facts)
    except NotToldError as error:
        log.info("cache: nothing is kept of this compilation: %s", error)
        return None


class Store:
    """Reads and writes one entry.

    Attributes:
        folder: of the cache.
        key: name of the entry.
    """

    def __init__(
        self,
        folder: Folder,
        key: Callable[[], str],
        captured: CapturedGraph,
        optimizer: Optimizer | None,
        facts: BatchFacts,
    ) -> None:
        self.folder = folder
        self.key = key()
        self._present_key = key
        self._captured = captured
        self._optimizer = optimizer
        self._facts, self._known = facts, len(facts)
        batch = captured.batch if isinstance(captured.batch, torch.SymInt) else None
        self._fakes = Fakes(captured.fake_mode, batch)

    def find(self) -> Record | None:
        """Returns the record of an earlier compilation, or None."""
        data = self.folder.read(self.key, _RECORD)
        if data is None:
            log.info("cache: %s has no entry %s", self.folder.path, self.key[:12])
            return None
        try:
            record = parse_record(data.decode())
        except (RecordError, UnicodeDecodeError) as error:
            log.warning("cache: left alone: %s of %s is no record: %s", _RECORD, self.key[:12], error)
            return None
        log.info("cache: taken from %s, entry %s", self.folder.path, self.key[:12])
        return record

    def keep(self, graph: ErrorGraph, own: ErrorGraph, stages: tuple[str, ...]) -> None:
        """Writes the record of a derived graph.

        Args:
            graph: the graph; its programs are kept as they are made.
            own: the same without the programs of other rules that take turns with its own.
            stages: names of the passes that ran behind the wiring.
        """
        if self._holds_for_some_batches():
            return
        try:
            text = record_of(graph, own, stages).text()
        except RecordError as error:
            log.info("cache: nothing is kept of this compilation: %s", error)
            return
        self.folder.write(self.key, _RECORD, text.encode())

    def graph(self, wired: ErrorGraph, record: Record, derive: Derive) -> ErrorGraph:
        """Returns a graph that derives what is not in the files when it is asked for.

        Args:
            wired: the graph behind the last pass that ran.
            record: what was kept of the derived graph.
            derive: returns the derived graph itself.

        Raises:
            RecordError: the record does not fit.
        """
        try:
            updates = record.updates_on_demand(self._fakes, lambda: derive().updates)
        except TextError as error:
            raise RecordError(str(error)) from error
        regions = {region.name: _of(derive, region.name) for region in wired.regions}
        wired = wired.replace(connections=record.connections(wired))
        graph = wired.gain(Linearized(OnDemand(regions))).gain(Fed(record.feedback)).gain(Updated(updates))
        programs = self.programs(record.programs, derive)
        return graph.replace(made=Programs(programs, self._optimizer, record.alternation))

    def kept(self, programs: Mapping[str, Program]) -> OnDemand[Program]:
        """Returns programs that are kept as they are made."""
        return OnDemand.of(programs).changed(self._keep_one)

    def _keep_one(self, name: str, program: Program) -> Program:
        self.write(name, program)
        return program

    def programs(self, names: tuple[str, ...], derive: Derive) -> OnDemand[Program]:
        """Returns programs that are read from files where they are there, and kept there where they were made."""
        return OnDemand({name: self._maker(name, derive) for name in names})

    def _maker(self, name: str, derive: Derive) -> Callable[[], Program]:
        def make() -> Program:
            found = self.read(name)
            if found is None:
                found = derive().programs[name]
                self.write(name, found)
            return found

        return make

    def read(self, name: str) -> Program | None:
        """Returns a program that was kept, or None."""
        text = self.folder.read(self.key, _text_of(name))
        tensors = self.folder.read(self.key, _tensors_of(name)) if text is not None else None
        if text is None or tensors is None:
            return None
        try:
            if text.partition(b"\n")[0] != f"# tensors {_sha(tensors)}".encode():
                raise ProgramError("its tensors are another's.")
            held = dict(_placed(key, tensor) for key, tensor in load(tensors).items())
            program = parse_program(text.decode(), held, self._fakes, f"program {name} of the cache")
            verify_program(program, "tuned", "it was read from the cache")
            self._check(program, name)
        except (ProgramError, VerifyError, SafetensorError, UnicodeDecodeError, RuntimeError) as error:
            log.warning("cache: left alone: program %s of %s: %s", name, self.key[:12], str(error).splitlines()[0])
            return None
        return program

    def _check(self, program: Program, name: str) -> None:
        """Refuses a program that is not one of its name: a digest says that a file is whole, not what it holds.

        Raises:
            ProgramError: says so.
        """
        kind = name.partition(SUFFIX)[0]
        outputs = [Slot("output", output) for output in self._captured.outputs if output]
        wanted = {"step": [LOSS], "backward": [LOSS], "forward": outputs}.get(kind, [])
        if program.name != kind or not set(wanted) <= set(program.outputs):
            raise ProgramError(f"program {name} of the cache: it is another one.")

    def write(self, name: str, program: Program) -> None:
        """Keeps a program, where it has a text, and where it is what the key says."""
        if self._has_changed():
            log.info("cache: program %s is not kept: what it depends on has changed since the compilation", name)
            return
        if self._holds_for_some_batches():
            return
        held = _held(program)
        try:
            text = format_program(program)
        except ProgramError as error:
            log.info("cache: program %s is not kept: %s", name, error)
            return
        if not all(map(_is_dense, held.values())):
            log.info("cache: program %s is not kept: it holds what is no dense tensor", name)
            return
        # Tensors that share memory would be one in a file.
        data = save({f"{key}@{one.device}": one.detach().clone() for key, one in held.items()})
        self.folder.write(self.key, _tensors_of(name), data)
        self.folder.write(self.key, _text_of(name), f"# tensors {_sha(data)}\n{text}".encode())

    def _holds_for_some_batches(self) -> bool:
        """Whether the loss or a rule asked for the size of the batch, which no file says; forward is captured anew."""
        if len(self._facts) > self._known:
            log.info("cache: nothing is kept of this compilation: it holds for a batch of which %s", self._facts)
        return len(self._facts) > self._known

    def _has_changed(self) -> bool:
        try:
            return self._present_key() != self.key
        except NotToldError:
            return True


def _of(derive: Derive, region: str) -> Callable[[], LocalGraph]:
    return lambda: derive().locals[region]


def _held(program: Program) -> Mapping[str, Any]:
    names = {str(node.target): None for node in program.graph.graph.nodes if node.op == "get_attr"}
    return {name: getattr(program.graph, name) for name in names}


def _is_dense(value: Any) -> bool:
    """Whether a file gives a tensor back as it is."""
    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and value.is_contiguous()
    return plain and not value.is_complex() and not value.is_quantized


def _placed(key: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    """A tensor's name, and the tensor where it was: files know no devices, so that their names say it."""
    name, _, device = key.partition("@")
    return name, tensor.to(device or "cpu")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _text_of(name: str) -> str:
    return f"{_file(name)}.txt"


def _tensors_of(name: str) -> str:
    return f"{_file(name)}.safetensors"


def _file(name: str) -> str:
    """A name that file systems take: "step:alternate" is step+alternate."""
    return name.replace(":", "+")

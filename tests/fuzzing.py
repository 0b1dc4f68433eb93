"""Reads damaged files in a child process and judges how: a sentence, or right; soon, in little memory, running nothing.

A child reads many files, since a fork is dear; what it may not do is told by Python's audit events. The peak of its
memory is set back before each file (Linux).
"""

import collections
import contextlib
import dataclasses
import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from fuzz_mutate import mutate
from fuzz_targets import Target

SECONDS = 1.0  # of processor time
TIMES = 10  # a file's size
FREE = 32 * 2**20  # bytes that no file is asked to account for: imports, caches, torch's own buffers
LONGEST, MOST = 500, 100  # characters of a line of what is said, and lines: laws that are broken stand in one each
BATCH = 50
# An address stands alone: the name of a temporary folder may have the same letters inside.
JARGON = re.compile(r"Errno|Traceback|\b0x|\[enforce|object at|aten\.|site-packages")
# Audit events of code that runs, or that leaves the folder of the file.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.", "pickle.find_class",
             "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.", "ctypes.dlopen")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How one damaged file was taken.

    Attributes:
        kind: "sentence", "right", or what is wrong.
        detail: the message, or what is wrong with it.
        seconds: of processor time.
        memory: bytes at the peak, beyond what was there before.
    """

    kind: str
    detail: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def good(self) -> bool:
        return self.kind in ("sentence", "right")


def seed_of(target: Target, number: int) -> int:
    """The number of a damaged file, as a seed: the same one is the same file on every machine."""
    return zlib.crc32(f"{target.name}:{number}".encode())


@contextlib.contextmanager
def attack(target: Target) -> Iterator["Attack"]:
    """The whole files of a target, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Attack(target, Path(folder))


class Attack:
    """Damages the files of one target.

    Args:
        target: who reads them.
        folder: where whole files are made.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self.home = folder / "seeds"
        self.home.mkdir()
        self.work = folder / "work"
        seeds = target.seeds(self.home)
        self.seeds = [path.relative_to(self.home) for path in seeds]
        self.contents = [path.read_bytes() for path in seeds]
        for path in self.seeds:
            self._whole(path)

    def _whole(self, path: Path) -> None:
        """A whole file is read, or the attack would be on nothing."""
        self.target.right(self.target.read(self.home / path))

    def damaged(self, number: int) -> tuple[Path, bytes]:
        """Returns which file a number damages, and what it then holds."""
        draw = random.Random(seed_of(self.target, number))
        chosen = draw.randrange(len(self.seeds))
        return self.seeds[chosen], mutate(self.contents[chosen], self.contents, draw)

    def run(self, numbers: Iterable[int]) -> Iterator[tuple[int, Verdict]]:
        """Reads damaged files, in children; yields each number with its verdict."""
        waiting = collections.deque(numbers)
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            done = list(_in_child(self, batch))
            yield from done
            if len(done) < len(batch):  # the child died of the next one
                yield batch[len(done)], Verdict("death", "the process ended")
                waiting.extendleft(reversed(batch[len(done) + 1 :]))

    def judge(self, number: int) -> Verdict:
        """Reads one damaged file, in this process."""
        path, content = self.damaged(number)
        shutil.copytree(self.home, self.work, dirs_exist_ok=True)
        file = self.work / path
        file.write_bytes(content)
        events = Events()
        before = _reset_peak()
        begin = _seconds()
        with events.watching():
            kind, detail = self._read(file, content.decode("utf-8", "backslashreplace"))
        seconds, memory = _seconds() - begin, max(0, _peak() - before)
        shutil.rmtree(self.work)
        if events.seen:
            kind, detail = "ran", events.seen[0]
        elif kind in ("sentence", "right") and seconds > SECONDS:
            kind, detail = "slow", f"{seconds:.1f} s for {len(content)} bytes"
        elif kind in ("sentence", "right") and memory > TIMES * len(content) + FREE:
            kind, detail = "memory", f"{memory} bytes for {len(content)}"
        return Verdict(kind, detail, seconds, memory)

    def _read(self, file: Path, content: str) -> tuple[str, str]:
        try:
            found = self.target.read(file)
        except self.target.error as error:
            return _sentence(str(error), content)
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return "raw", f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
        try:
            self.target.right(found)
        except BaseException as error:
            return "wrong", f"{type(error).__name__}: {str(error)[:200]}"
        return "right", ""


def _sentence(message: str, content: str) -> tuple[str, str]:
    lines = message.split("\n")
    if max(map(len, lines)) > LONGEST or len(lines) > MOST or not message.strip():
        return "not a sentence", f"{len(message)} characters, {len(lines)} lines"
    word = next((word for word in JARGON.findall(message) if word not in content), None)
    return ("not a sentence", f"{word} in: {message[:200]}") if word else ("sentence", message[:200])


class Events:
    """What a reader did that no reader may do."""

    current: "Events | None" = None
    hooked = False

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        if not Events.hooked:
            sys.addaudithook(_audit)
            Events.hooked = True
        Events.current = self
        try:
            yield
        finally:
            Events.current = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    current = Events.current
    if current is None:
        return
    writes = event == "open" and isinstance(arguments[1], str) and any(sign in arguments[1] for sign in "wax+")
    if writes or event.startswith(FORBIDDEN):
        current.seen.append(f"{event} {str(arguments)[:150]}")


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _reset_peak() -> int:
    """Sets the peak of this process's memory back to what it holds now, and returns that, in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _in_child(attack: Attack, numbers: list[int]) -> Iterator[tuple[int, Verdict]]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(read)
            with os.fdopen(write, "w") as out, open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                for number in numbers:
                    verdict = attack.judge(number)
                    out.write(json.dumps([number, dataclasses.astuple(verdict)]) + "\n")
                    out.flush()
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as told:
        for line in told:
            number, values = json.loads(line)
            yield number, Verdict(*values)
    os.waitpid(child, 0)


torch.set_num_threads(1)  # a fork has no other threads

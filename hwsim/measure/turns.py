"""Several files in one memory, which take turns on one instance without a reset between."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwsim.cycles import predict
from hwsim.defaults import DEFAULT_MEMORY
from hwsim.measure.checked import Checked, Count, Engine
from hwsim.measure.compare import require_ok, require_prediction
from hwsim.measure.counts import run_of
from hwsim.measure.document import Accelerator, Memory, Remaining, Reordered, Run
from hwsim.measure.file import Progress, opened, runs_as_network
from hwsim.measure.simulate import DEFAULT_TIMEOUT_CYCLES
from hwsim.measure.work import Work, steps_of
from hwsim.memory import absolute_memory, parse_memory
from hwsim.program import Program, Step, assemble
from hwsim.program.memory import Space
from hwsim.simulator.accelerator import Surroundings, run_programs
from rtl import AcceleratorConfig
from vq.container import ConfigError, Container, SimulationError, Span

__all__ = ["Turn", "Turns", "estimate_turns", "simulate_turns"]

File = str | PathLike[str]


class Turn(Checked):
    """One inference; ``file`` is the place of its file in ``files``."""

    file: Count
    run: Run


class Turns(Checked):
    """The document ``signbook.turns/1``: what every turn cost.

    ``runtime`` is what remains at run time of each file, if anything does of any, and is not run.
    """

    kind: Literal["signbook.turns/1"] = Field(alias="schema")
    engine: Engine
    accelerator: Accelerator
    memory: Memory
    files: list[str]
    turns: Annotated[list[Turn], Field(min_length=1)]
    runtime: list[list[Remaining]] | None = None


def simulate_turns(
    paths: Sequence[File],
    turns: Sequence[int] | None = None,
    *,
    config: AcceleratorConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    rows: int = 1,
    keep: bool = True,
    check: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run files one after another on one simulated instance, and report what each turn cost.

    There is one memory image and one reset. A file with an integer graph runs as a whole network,
    on another random input in every turn; of any other file, every layer's matrix multiplies
    ``rows`` rows. All values of all turns are compared with numpy. In a turn, the registers of the
    hardware must say that exactly the program's bytes were read, of every kind: without any of
    codebooks, if they are in ROM.

    Parameters
    ----------
    paths : sequence of path
        ``*.vq.safetensors`` files; they may be of different networks and formats.
    turns : sequence of int, optional
        Places in ``paths``, in the order in which they run; every file once if left out.
    config, memory
        See :func:`hwsim.simulate`.
    rows : int
        For each layer of files without a graph.
    keep : bool
        A turn that begins with the codebook that the instance has loaded last uses it as it is. If
        false, every turn loads its own.
    check : bool
        Require that the cycle model counts the same in every turn.
    progress : callable, optional
        Called now and then with "turns", all data beats so far, and all beats.

    Returns
    -------
    dict
        The document ``signbook.turns/1``: "files", and "turns" with "file", the place of its file,
        and "run", as one of ``signbook.simulate/2``.

    Raises
    ------
    ConfigError
        If there is no such turn, the instance cannot run a layer, all of it does not fit memory, or
        memory is unknown. Nothing has been simulated then.
    ContainerError
        If a file is damaged.
    SimulationError
        See :func:`hwsim.simulate`.
    """
    config = config or AcceleratorConfig()
    memory = absolute_memory(memory)
    planned: list[tuple[Program, Work, bool]] = []
    with _Table.of(paths, turns, config, memory, rows, keep) as table:
        for number, place in enumerate(table.turns):
            with table.naming(place):
                container = table.files[place]
                work = Work.of(container, container, table.rows_of(place), seed=number)
                holds_book = table.holds_book
                planned.append((table.program(place, work.steps), work, holds_book))
        image = bytearray(table.space.end)
        for program, work, _ in planned:
            program.write(image)
            work.write(program, image)
        beats = sum(
            layer.read_bytes // config.bus_bytes
            for program, *_ in planned
            for layer in program.layers
        )
        outcomes = run_programs(
            config,
            [program for program, *_ in planned],
            image,
            Surroundings(memory=memory, timeout_cycles=DEFAULT_TIMEOUT_CYCLES),
            progress and (lambda done: progress("turns", done, beats)),
        )
        if progress is not None:
            progress("turns", beats, beats)
        runs = []
        for place, (program, work, holds_book), outcome in zip(
            table.turns, planned, outcomes, strict=False
        ):
            with table.naming(place):
                require_ok(program, outcome)
                if check:
                    asked = parse_memory(memory)
                    predicted = predict(config, program, asked, holds_book=holds_book)
                    require_prediction(program, outcome, predicted, asked)
                runs.append(run_of(program, outcome, config, work.is_in(program, outcome.image)))
        return table.document("rtl", runs)


def estimate_turns(
    paths: Sequence[File],
    turns: Sequence[int] | None = None,
    *,
    config: AcceleratorConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    rows: int = 1,
    keep: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict what :func:`simulate_turns` counts, without simulating RTL.

    Turns that cannot differ are predicted once: those of one file that find the same codebook
    loaded. With a memory that is not ideal, each of them begins on one that has not been used.

    Parameters
    ----------
    paths, turns, config, memory, rows, keep
        See :func:`simulate_turns`.
    progress : callable, optional
        Called with "turns", turns so far, and all turns.

    Returns
    -------
    dict
        The document ``signbook.turns/1`` with engine "model".

    Raises
    ------
    ConfigError, ContainerError
        See :func:`simulate_turns`.
    SimulationError
        If there is no C compiler.
    """
    config = config or AcceleratorConfig()
    known: dict[tuple[int, Span | None, bool], tuple[Program, Run]] = {}
    runs = []
    with _Table.of(paths, turns, config, memory, rows, keep) as table:
        for place in table.turns:
            key = (place, table.held(place), table.holds_book)
            with table.naming(place):
                if key in known:
                    table.ran(place, known[key][0])
                else:
                    container = table.files[place]
                    steps = steps_of(container, container, table.rows_of(place))
                    program = table.program(place, steps)
                    counts = predict(config, program, parse_memory(memory), holds_book=key[-1])
                    known[key] = program, run_of(program, counts, config, exact=None)
            runs.append(known[key][1])
            if progress is not None:
                progress("turns", len(runs), len(table.turns))
        return table.document("model", runs)


@dataclass(eq=False)
class _Table:
    """Files in one memory, and what the codebook RAM holds as they take turns."""

    paths: Sequence[File]
    turns: Sequence[int]
    config: AcceleratorConfig
    memory: str
    rows: int
    keep: bool
    files: list[Container] = field(default_factory=list)
    reordered: list[Reordered | None] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    space: Space = field(default_factory=Space)
    book: NDArray[np.int8] | None = None

    @classmethod
    @contextmanager
    def of(
        cls,
        paths: Sequence[File],
        turns: Sequence[int] | None,
        config: AcceleratorConfig,
        memory: str,
        rows: int,
        keep: bool,
    ) -> Iterator[Self]:
        """Open all files, and give each its place."""
        order = range(len(paths)) if turns is None else turns
        parse_memory(memory)
        if rows < 1:
            raise ConfigError(f"rows must be at least 1, not {rows}")
        wrong = [str(place) for place in order if not 0 <= place < len(paths)]
        if wrong or not order:
            raise ConfigError(
                f"turns must be places of {len(paths)} files, counted from 0, not "
                f"{wrong[0] if wrong else 'none'}"
            )
        table = cls(paths, order, config, memory, rows, keep)
        with ExitStack() as stack:
            for place, path in enumerate(paths):
                with table.naming(place):
                    container, reordered = stack.enter_context(opened(path, config))
                table.files.append(container)
                table.reordered.append(reordered)
                table.bases.append(table.space.take_pages(container.file_bytes))
            yield table

    @contextmanager
    def naming(self, place: int) -> Iterator[None]:
        """Say in errors which file they are about."""
        try:
            yield
        except (ConfigError, SimulationError) as error:
            raise type(error)(f"{fspath(self.paths[place])}: {error}") from error

    def rows_of(self, place: int) -> int | None:
        """Rows for each layer of a file; None if it runs as a network."""
        return None if runs_as_network(self.files[place], None) else self.rows

    @property
    def holds_book(self) -> bool:
        """Whether a codebook has been loaded."""
        return self.book is not None

    def held(self, place: int) -> Span | None:
        """Codebook of a file that need not be loaded again."""
        if not self.keep or self.book is None:
            return None
        container = self.files[place]
        stored = (entry for entry in container.layers if entry.codebook is not None)
        return next(
            (
                entry.codebook
                for entry in stored
                if np.array_equal(container.codebook(entry.geometry.name), self.book)
            ),
            None,
        )

    def program(self, place: int, steps: Sequence[Step]) -> Program:
        """The program of the next turn."""
        program = assemble(
            steps, self.files[place], self.config,
            space=self.space, base=self.bases[place], held=self.held(place),
        )  # fmt: skip
        self.ran(place, program)
        return program

    def ran(self, place: int, program: Program) -> None:
        """Take note of the codebook that a program leaves behind."""
        weights = [layer.weights for layer in program.layers if layer.weights]
        loaded = [layer.entry.geometry.name for layer in weights if layer.codebook_bytes]
        if loaded:
            self.book = self.files[place].codebook(loaded[-1])

    def document(self, engine: Engine, runs: Sequence[Run]) -> dict[str, Any]:
        """All turns as plain data."""
        found = []
        for place, run in zip(self.turns, runs, strict=True):
            reordered = self.reordered[place]
            more = {} if reordered is None else {"reordered": reordered}
            found.append(Turn(file=place, run=run.model_copy(update=more)))
        remains = [
            [Remaining(**part) for part in file.runtime_facts().get("runtime", [])]
            for file in self.files
        ]
        return Turns(
            schema="signbook.turns/1",
            engine=engine,
            accelerator=Accelerator.model_validate(self.config.to_mapping()),
            memory=Memory.model_validate(parse_memory(self.memory).describe()),
            files=[fspath(path) for path in self.paths],
            turns=found,
            **({"runtime": remains} if any(remains) else {}),
        ).model_dump(by_alias=True, exclude_unset=True)

"""What a net says of its compilation, and what it can be written as."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from altprop.ir.compiler import Compilation
from altprop.ir.errors import ExportError
from altprop.ir.explain import Explanation, explain
from altprop.ir.graph import ErrorGraph
from altprop.ir.history import History
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import WiringPlan
from altprop.ir.timings import Timings
from altprop.ir.torch_private import InCheckpoints
from altprop.ir.training_recipe import Recipe
from altprop.runtime.bindings import Bindings
from altprop.runtime.compilations import Compilations
from altprop.runtime.diverging import Diverging, remedy_in
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.noise import Noise, noise_forms
from altprop.runtime.optimizer_state import OptimizerState
from altprop.runtime.parallel.net_tensors import NetTensors


class NetViews(InCheckpoints):
    """A net's plan, graph, tables, schedules and files; see `LocalNet`."""

    model: nn.Module
    feedback: FeedbackStore
    state: OptimizerState
    noise: Noise
    optimizer: Optimizer | None
    recipe: Recipe
    diverging: Diverging
    compilations: Compilations

    def _compiled(self) -> Compilation:
        return self.compilations.present().compiled

    @property
    def plan(self) -> WiringPlan:
        """The wiring plan."""
        plan = self._compiled().graph.plan
        assert plan is not None, "a compilation has come to the end of the passes"
        return plan

    @property
    def graph(self) -> ErrorGraph:
        """The error-pathway graph after all passes."""
        return self._compiled().graph

    @property
    def history(self) -> History:
        """The graph after each pass, by the pass's name; prints as a table of the passes."""
        compiled = self._compiled()
        return History(compiled.history, compiled.timings)

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds that each stage of the compilation took."""
        return self.timings.stages

    @property
    def timings(self) -> Timings:
        """Where the time of the compilation went: by stage, and inside stages by region."""
        return self._compiled().timings

    def schedule(self, devices: Any = None, **options: Any) -> Any:
        """Cuts the step into one program a device.

        Args:
            devices: how many devices like the model's own; a list, such as `["cpu", "cuda:0"]` or
                `["cuda:0", "cuda:0"]`, two streams of one GPU; a `DeviceMesh` with the dimensions
                `("replica", "region")` or `("region",)`; None means what `compile` was told.
            options: `microbatches=`, a number that divides the batch; `join=`, a number that divides them: so many may
                share an update where that pays, which then holds what it reads of each; `batch=`, samples of a step,
                else those of the example; `target=`, an example of the loss's target where it has no usual form;
                `placement=`, the device of each region, by name, where stages of equal work are not wanted;
                `machine=`, an `altprop.Machine`, the file of one, or what `measure` of another schedule of this net
                found; `order=`, "list", or a known order of pipelines to compare with: "naive", "gpipe", "1f1b",
                "zero-bubble"; `steps=`, how many steps in a row the placement is chosen for, 1 unless it is given.

        Returns:
            An `altprop.Schedule`.

        Raises:
            ScheduleError: the step cannot be cut so.
        """
        self._compiled()
        return self.compilations.compiler.schedule(self, devices, **options)

    def tensors(self) -> NetTensors:
        """Returns what runtimes of schedules need: the net's tensors and its optimizer.

        Raises:
            ScheduleError: the net was compiled without `optimizer=`.
        """
        graph = self.graph
        bindings = Bindings(self.model, self.feedback, self.state, graph.captured.constants)
        example = self.compilations.present().example
        forms = noise_forms(graph)
        keywords = tuple(example.kwargs)
        made = NetTensors(bindings, graph.captured.inputs, keywords, self.optimizer, self.state, self.noise, forms)
        made.structure = example.structure
        made.diverging, made.remedy = self.diverging, remedy_in(graph)
        made.settings = {"plan": str(graph.plan), "seed of feedback": str(self.feedback.seed)}
        return made

    @property
    def example_batch(self) -> int:
        """Samples of the inputs that the net was captured with."""
        return self.compilations.present().example.batch

    def explain(self) -> Explanation:
        """Returns a table, one row a parameter: which rule really moves it, and where its signal comes from."""
        trainable = {name: p.requires_grad for name, p in self.model.named_parameters()}
        return explain(self.graph, trainable)

    def export(self, path: str | Path, **options: Any) -> Path:
        """Writes a program that runs, the graph, or the plan; the suffix chooses.

        Args:
            path: `.onnx`, `.pte` or `.pt2`: a program; `.json`: the plan; `.graphml`, `.dot`, `.svg`, `.png`, `.pdf`,
                `.html`: the graph.
            options: for programs: `what` ("step", "backward", "forward", "update"), `initial` (".npz",
                ".safetensors" or ""), `errors`, `target`, an example of the loss's target; of `.onnx` also
                `external_data`, of `.pte` also `batch` and `delegate` ("xnnpack").

        Returns:
            The path; for `what="update"`, the folder.

        Raises:
            ExportError: says what cannot be exported, where, and the way out.
        """
        path = Path(path)
        if path.suffix in (".onnx", ".pte", ".pt2"):
            self._compiled()
            return self.compilations.compiler.export(self, path, **options)
        if options:
            raise ExportError(f"{path.name}: {', '.join(options)} fit .onnx, .pte and .pt2 alone.")
        if path.suffix == ".json":
            self.plan.save(path)
            return path
        return self.graph.draw(path, history=self.history) if path.suffix == ".html" else self.graph.draw(path)

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Writes the net as a folder that `altprop.from_pretrained` reads; needs the extra `hub`.

        Args:
            folder: where; `model.safetensors` in it holds the model's own weights, for torch alone.
            options: for `huggingface_hub.ModelHubMixin.save_pretrained`.

        Returns:
            The folder.
        """
        self._compiled()
        return self.compilations.compiler.save_pretrained(self, folder, **options)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Uploads the net to the Hugging Face Hub, with a model card that holds the table of `explain()`.

        Args:
            name: the repository, `"me/my-net"`.
            options: for `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private=True`.

        Returns:
            The address of the commit.
        """
        self._compiled()
        return self.compilations.compiler.push_to_hub(self, name, **options)

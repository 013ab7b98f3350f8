"""A GGUF model as an Engine: the parent's side, which never touches llama.cpp.

The header is read and checked here, the file is loaded in a child process (`llama_child`). A crash
costs the call that runs; the child is started again and the engine stays announced.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_node.mesh.child import Child, ChildSpec, open_child
from monai_node.mesh.engine.base import EngineCard
from monai_node.mesh.engine.describe import describe, skills_of
from monai_node.mesh.engine.gguf import GgufHeader, read_header
from monai_node.mesh.engine.llama_request import payload_of
from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import SetupError, TaskFailed
from monai_node.registry.wire import TaskCompleted, TaskDelta, TaskRequest, Timings, Usage

N_CTX_DEFAULT = 4096
_N_CTX_MIN = 256
_MEMORY_SHARE = 4  # the context may take one part in this of the machine's memory
_SPARE_BYTES = 4 << 30  # address space for Python, libraries, thread stacks and compute buffers

# OpenMP's spinning barriers collapse on a machine that does anything else; an assertion must end the
# process at once instead of starting a debugger first; numpy needs no threads here.
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "GGML_NO_BACKTRACE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How a model is loaded, in llama.cpp's own words; None chooses for this machine.

    `context_bytes` is what the context's memory may take; `n_ctx` shrinks to fit. `use_extra_bufts`
    lets ggml keep weights in a form made for this processor: faster prefill for some quantisations.
    """

    n_ctx: int | None = None
    n_threads: int | None = None
    n_gpu_layers: int = 0
    use_extra_bufts: bool | None = None
    context_bytes: int | None = None
    nice: int = 0
    load_seconds: float = 120.0


class LlamaEngine:
    """Serves one GGUF file. Made by `open_llama_engine`."""

    def __init__(self, child: Child, model: ModelInfo, skills: tuple[Skill, ...]) -> None:
        self.child = child
        self._card = EngineCard(skills=skills, model=model)
        self._model = model

    @property
    def card(self) -> EngineCard:
        return self._card

    def learn_digest(self, digest: str) -> None:
        """Announce the digest of the whole file, once somebody has computed it."""
        self._model = self._model.model_copy(update={"digest": digest})
        self._card = replace(self._card, model=self._model)

    async def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted, None]:
        payload = payload_of(request)
        async with aclosing(self.child.call("generate", payload)) as events:
            async for event in events:
                match event:
                    case {"text": str(text), **told}:
                        yield TaskDelta(attempt=request.attempt, text=text, **told)
                    case {"finish_reason": "stop" | "length" | "tool_calls"}:
                        yield self._completed(request, event)
                        return
                    case _:
                        raise TaskFailed("the model's process sent an event of unknown shape")
        raise TaskFailed("the model's process ended the result without saying why")

    def _completed(self, request: TaskRequest, event: dict[str, Any]) -> TaskCompleted:
        return TaskCompleted(
            attempt=request.attempt,
            finish_reason=event["finish_reason"],
            model=self._model.alias,
            model_digest=self._model.digest,
            usage=Usage.model_validate(event),
            timings=Timings.model_validate(event),
            tool_calls=event["tool_calls"],
        )


def fit_n_ctx(header: GgufHeader, wanted: int | None, context_bytes: int) -> int:
    """The context to open: what is wanted (4096 when nothing is), at most what the model was
    trained for and what the memory holds; SetupError when that is too little to be of use.
    """
    most = min(wanted or N_CTX_DEFAULT, header.context_length or N_CTX_DEFAULT)
    fitting = min(most, context_bytes // max(header.kv_bytes_per_token, 1))
    if fitting < min(most, _N_CTX_MIN):
        raise SetupError(f"there is no memory for a context of more than {fitting} tokens")
    return fitting


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def has_amx() -> bool:
    """Whether ggml would compute with AMX tiles, whose set-up faults on virtual machines that show
    the feature without supporting it: the process then dies at the first prompt."""
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _child_spec(path: Path, alias: str, header: GgufHeader, options: LlamaOptions) -> ChildSpec:
    budget = options.context_bytes or _machine_bytes() // _MEMORY_SHARE
    n_ctx = fit_n_ctx(header, options.n_ctx, budget)
    # Weights count twice: mapped, and once more where ggml repacks them for this processor. Drivers
    # of accelerators reserve far more address space than they use.
    extra = options.use_extra_bufts
    memory = 2 * header.size_bytes + n_ctx * header.kv_bytes_per_token + _SPARE_BYTES
    return ChildSpec(
        name=f"the model {alias}",
        entry="monai_node.mesh.engine.llama_child.main",
        config={
            "path": str(path.resolve()),
            "n_ctx": n_ctx,
            "n_threads": options.n_threads or max(1, (os.cpu_count() or 2) - 1),
            "n_gpu_layers": options.n_gpu_layers,
            "use_extra_bufts": not has_amx() if extra is None else extra,
        },
        environment=_ENVIRONMENT,
        memory_bytes=None if options.n_gpu_layers else memory,
        nice=options.nice,
        load_seconds=options.load_seconds,
    )


def _servable(header: GgufHeader, path: Path) -> GgufHeader:
    if header.general_type != "model":
        raise SetupError(f"{path} is not a model but a part for one ({header.general_type})")
    if header.is_embedding:
        raise SetupError(f"{path} is an embedding model: it cannot write text")
    return header


@asynccontextmanager
async def open_llama_engine(
    path: Path, alias: str, options: LlamaOptions | None = None
) -> AsyncGenerator[LlamaEngine, None]:
    """A loaded model, ready to serve; SetupError in one sentence when the file or the machine does
    not allow it. Leaving ends its process and gives all memory back."""
    header = _servable(await asyncio.to_thread(read_header, path), path)
    model = await asyncio.to_thread(describe, header, alias, path)
    spec = _child_spec(path, alias, header, options or LlamaOptions())
    async with open_child(spec) as child:
        model = model.model_copy(update={"n_ctx": child.info["n_ctx"]})
        yield LlamaEngine(child, model, skills_of(header, alias))

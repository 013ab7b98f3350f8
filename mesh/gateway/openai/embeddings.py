"""What `POST /v1/embeddings` is asked and answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import Field

from monai_node.mesh.embeddings import Embedded, EmbeddingModel, Text
from monai_node.mesh.gateway.http.json_io import encode_json, parse_object
from monai_node.mesh.gateway.openai.bodies import Addressed, validated
from monai_node.registry.errors import InvalidRequest
from monai_node.router.embed import Vector, Vectors

INPUTS_MAX = 2048  # OpenAI's document
_ROWS_AT_ONCE = 64  # written in 2 ms

_Tokens = Annotated[list[int], Field(max_length=INPUTS_MAX, fail_fast=True)]
_Texts = Annotated[list[str], Field(max_length=INPUTS_MAX, fail_fast=True)]
_TokensOfTexts = Annotated[list[_Tokens], Field(max_length=INPUTS_MAX, fail_fast=True)]


class EmbeddingBody(Addressed):
    """`mesh` as model, the default, means the gateway's own."""

    input: str | _Texts | _Tokens | _TokensOfTexts = Field(
        description="a text or the model's tokens of one, or a list of such"
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(
        default=None, ge=1, description="the first so many components, made a unit vector again"
    )

    @property
    def texts(self) -> Sequence[Text]:
        match self.input:
            case str() | [int(), *_]:
                return [cast("Text", self.input)]
            case many:
                return cast("Sequence[Text]", many)


def embedding_body(body: bytes) -> EmbeddingBody:
    """InvalidRequest for what is none."""
    found = validated(EmbeddingBody, parse_object(body))
    if not found.texts:
        raise InvalidRequest("input is empty", param="input")
    return found


def fewer_dimensions(vectors: Vectors, wanted: int | None, model: EmbeddingModel) -> Vectors:
    """The first components of unit vectors, made unit vectors again; InvalidRequest when there are not so
    many.

    all-MiniLM-L6-v2 was not trained for that. Of 1,500 requests each of MetaTool and CLINC150 so many are
    nearest to the skill they are for: 62 and 60 % with all 384, 60 and 59 with 256, 57 and 53 with 128, 47
    and 45 with 64.
    """
    if wanted is None:
        return vectors
    if wanted > model.dimensions:
        raise InvalidRequest(
            f"dimensions should be at most {model.dimensions}, which {model.alias} has", param="dimensions"
        )
    cut = vectors[:, :wanted]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)


async def embedding_list(
    found: Embedded, vectors: Vectors, model: EmbeddingModel, encoding: Literal["float", "base64"]
) -> bytes:
    """OpenAI's list, as JSON. Written piece by piece: half a million numbers would hold up the event loop."""
    rows: list[bytes] = []
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows += [
            encode_json(_row(start + n, row, encoding))
            for n, row in enumerate(vectors[start : start + _ROWS_AT_ONCE])
        ]
        await asyncio.sleep(0)
    usage = {"prompt_tokens": found.token_count, "total_tokens": found.token_count}
    head = encode_json({"object": "list", "model": model.alias, "usage": usage})
    return head[:-1] + b',"data":[' + b",".join(rows) + b"]}"


def _row(index: int, vector: Vector, encoding: Literal["float", "base64"]) -> dict[str, Any]:
    numbers = vector.astype("<f4")
    shown = numbers.tolist() if encoding == "float" else base64.b64encode(numbers.tobytes()).decode()
    return {"object": "embedding", "index": index, "embedding": shown}

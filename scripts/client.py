"""Talk to a running ComfyUI as the browser does: queue a prompt, follow it on the websocket, fetch what it made."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import websocket

Prompt = dict[str, dict[str, Any]]
TEXT = 3  # the type, in the first four bytes, of a binary message with a node's text; the others are previews
MEDIA_HEADER = 8  # bytes before the picture in a preview message, or before the node's name in one with text


class PromptError(RuntimeError):
    """ComfyUI refused a prompt, or a node of it raised.

    `node_id` and `node_type` are None where ComfyUI blames no single node.
    """

    def __init__(
        self, exception_message: str, node_id: str | None = None, node_type: str | None = None, traceback: str = ""
    ) -> None:
        where = f"node {node_id} ({node_type}): " if node_id else ""
        super().__init__(f"{where}{exception_message.strip()}" + (f"\n{traceback}" if traceback else ""))
        self.exception_message = exception_message
        self.node_id = node_id
        self.node_type = node_type


class PromptInterruptedError(PromptError):
    """The prompt was stopped before it finished; `node_id` is the node that was running."""


@dataclass(frozen=True)
class Progress:
    """One step of one node: `value` of `max` done."""

    node_id: str
    value: float
    max: float


@dataclass(frozen=True)
class OutputFile:
    """A file a node saved, as ComfyUI names it.

    `type` is output, temp or input, and the path is relative to that folder.
    """

    filename: str
    subfolder: str = ""
    type: str = "output"


@dataclass
class Result:
    """What a prompt did.

    `outputs` is per node what its UI shows; `ran` lists the nodes that ran, in order, so a cached one is in `cached`
    instead. `texts` is (node, line) for each line that a node showed while it ran.
    """

    prompt_id: str
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def files(self) -> list[OutputFile]:
        """Every file in `outputs`, in node order."""
        entries = [
            entry
            for output in self.outputs.values()
            for shown in output.values()
            if isinstance(shown, list)
            for entry in shown
        ]
        return [
            OutputFile(e["filename"], e.get("subfolder", ""), e.get("type", "output"))
            for e in entries
            if isinstance(e, dict) and "filename" in e
        ]


class Client:
    """One ComfyUI server's HTTP and websocket interface.

    Requests that fail raise requests.HTTPError with the server's answer in it.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy from the environment knows nothing about our own machine

    def queue(self, prompt: Prompt, *, client_id: str | None = None, workflow: dict[str, Any] | None = None) -> str:
        """Queue an API-format prompt and return its id.

        `workflow` is the UI-format graph that nodes write into the files they save. Raises PromptError if ComfyUI finds
        anything wrong with the prompt, in any of its branches.
        """
        body: dict[str, Any] = {"prompt": prompt}
        if client_id:
            body["client_id"] = client_id
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        response = self._session.post(f"{self.url}/prompt", json=body, timeout=self.timeout)
        if response.status_code == 400:
            raise _refusal(prompt, response.json())
        answer = _checked(response).json()
        if answer.get("node_errors"):  # ComfyUI would run the valid branches and drop the rest without a word
            self.cancel(answer["prompt_id"])
            raise _refusal(prompt, answer)
        return str(answer["prompt_id"])

    def run(
        self,
        prompt: Prompt,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float = 600.0,
        workflow: dict[str, Any] | None = None,
    ) -> Result:
        """Queue a prompt and wait for it.

        Raises PromptError, PromptInterruptedError, TimeoutError (the prompt is cancelled), ConnectionError.
        """
        # A fresh id and socket each: the server drops a socket whose id another one has used, sometimes the new one.
        client_id = uuid.uuid4().hex
        address = f"{re.sub('^http', 'ws', self.url)}/ws?clientId={client_id}"
        with contextlib.closing(websocket.create_connection(address, timeout=self.timeout)) as events:
            started = time.monotonic()
            result = Result(self.queue(prompt, client_id=client_id, workflow=workflow))
            error = self._follow(events, result, on_progress, started + timeout)
            result.seconds = time.monotonic() - started
        if error is not None:
            raise error
        result.outputs = self.history(result.prompt_id)["outputs"]
        return result

    def _follow(
        self,
        events: websocket.WebSocket,
        result: Result,
        on_progress: Callable[[Progress], None] | None,
        deadline: float,
    ) -> PromptError | None:
        """Fill `result` from the server's messages until the prompt is done; the node's error, if one stopped it."""
        error: PromptError | None = None
        while True:
            message = self._receive(events, result, deadline)
            if isinstance(message, bytes):
                if int.from_bytes(message[:4], "big") == TEXT:
                    name, text = _node_and_text(message)
                    result.texts.append((name, text))
                else:
                    result.previews.append(message[MEDIA_HEADER:])
                continue
            event = json.loads(message)
            kind, data = event["type"], event["data"]
            if data.get("prompt_id") != result.prompt_id:
                continue
            if kind == "executing" and data["node"] is None:  # sent last of all, once the history is written
                return error
            if kind == "executing":
                result.ran.append(data["node"])
            elif kind == "execution_cached":
                result.cached.extend(data["nodes"])
            elif kind == "progress":
                step = Progress(data["node"], data["value"], data["max"])
                result.progress.append(step)
                if on_progress:
                    on_progress(step)
            elif kind == "execution_error":
                message = f"{data['exception_type']}: {data['exception_message']}"
                error = PromptError(message, data["node_id"], data["node_type"], "".join(data["traceback"]))
            elif kind == "execution_interrupted":
                error = PromptInterruptedError("interrupted", data["node_id"], data["node_type"])

    def _receive(self, events: websocket.WebSocket, result: Result, deadline: float) -> str | bytes:
        try:
            events.settimeout(max(deadline - time.monotonic(), 0.001))
            message = events.recv()
        except websocket.WebSocketTimeoutException:
            self.cancel(result.prompt_id)
            last = f"node {result.ran[-1]} was running" if result.ran else "no node had started"
            raise TimeoutError(f"prompt {result.prompt_id} took too long ({last}); it has been cancelled") from None
        except (websocket.WebSocketException, OSError) as cause:
            raise ConnectionError(
                f"lost ComfyUI at {self.url} while prompt {result.prompt_id} ran; its log tells why"
            ) from cause
        if not message:  # a close frame
            raise ConnectionError(
                f"ComfyUI at {self.url} closed the connection while prompt {result.prompt_id} ran; its log tells why"
            )
        return message

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop the running prompt, or only the named one if it is the one running."""
        self._post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def cancel(self, prompt_id: str) -> None:
        """Drop a prompt whether it still waits or already runs."""
        self._post("/queue", {"delete": [prompt_id]})
        self.interrupt(prompt_id)

    def free(self) -> None:
        """Unload every model and drop every cached result, before the next prompt."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def history(self, prompt_id: str) -> dict[str, Any]:
        """A finished prompt's entry: `outputs` by node, `status` with its messages.

        Raises KeyError for one that has not finished.
        """
        return self._get(f"/history/{prompt_id}").json()[prompt_id]

    def object_info(self) -> dict[str, Any]:
        """Every node type's inputs and outputs, by type."""
        return self._get("/object_info").json()

    def system_stats(self) -> dict[str, Any]:
        """Versions, devices and memory."""
        return self._get("/system_stats").json()

    @property
    def comfyui_version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.system_stats()["system"]["comfyui_version"].split("."))

    def upload(self, path: Path, subfolder: str = "") -> str:
        """Put a file of any kind into the input folder; returns the name that loader nodes take."""
        form = {"overwrite": "true", "subfolder": subfolder}
        with path.open("rb") as file:
            saved = _checked(
                self._session.post(f"{self.url}/upload/image", files={"image": file}, data=form, timeout=self.timeout)
            ).json()
        return f"{saved['subfolder']}/{saved['name']}" if saved["subfolder"] else saved["name"]

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """The bytes of a file in the output, temp or input folder."""
        return self._get("/view", {"filename": filename, "subfolder": subfolder, "type": type}).content

    def _get(self, path: str, query: dict[str, str] | None = None) -> requests.Response:
        return _checked(self._session.get(self.url + path, params=query, timeout=self.timeout))

    def _post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return _checked(self._session.post(self.url + path, json=body, timeout=self.timeout))


def _node_and_text(message: bytes) -> tuple[str, str]:
    end = MEDIA_HEADER + int.from_bytes(message[4:MEDIA_HEADER], "big")
    return message[MEDIA_HEADER:end].decode(), message[end:].decode()


def _checked(response: requests.Response) -> requests.Response:
    if not response.ok:
        raise requests.HTTPError(
            f"{response.request.method} {response.url}: {response.status_code} {response.text[:500]}", response=response
        )
    return response


def _refusal(prompt: Prompt, answer: dict[str, Any]) -> PromptError:
    """ComfyUI's reasons against a prompt as one error: all in the message, the first one's node in the attributes."""
    reasons = []
    for node_id, node in (answer.get("node_errors") or {}).items():
        kind = node["class_type"]
        reasons += [(node_id, kind, f"{error['message']}: {error['details']}") for error in node["errors"]]
    if not reasons:  # a type it does not know, or no output node at all: only the message names the node, if any
        error = answer["error"]
        mentioned = re.search(r"#(\S+?)'", error.get("details") or "")
        node_id = mentioned.group(1) if mentioned and mentioned.group(1) in prompt else None
        node_type = prompt[node_id].get("class_type") if node_id else None
        return PromptError(f"{error['message']} {error.get('details') or ''}", node_id, node_type)
    (node_id, node_type, message), *others = reasons
    return PromptError(message + "".join(f"\nnode {i} ({t}): {m}" for i, t, m in others), node_id, node_type)

#!/usr/bin/env python3
"""Client for the model of this folder: pictures in, the best classes out.

Of a segmentation network these are the classes with the most pixels, of a detector everything it
found: class, score, box and the pixels of its mask. Of any other output it prints shape, mean and
root mean square.

    python client.py PICTURE...                      over HTTP
    python client.py --protocol grpc PICTURE...      over gRPC (pip install "tritonclient[grpc]")
    python client.py --check                         the stored answers, asked again of the server

It needs numpy, and Pillow to read pictures. Everything about the model (tensors, preparation of
pictures, labels) is in manifest.json beside it. Pictures are prepared as the model's metadata says;
a model that takes bytes gets them unchanged.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
# The manifest names every file of this folder, and the two beside this are found wherever it is
# started from.
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
from client_answers import (
    ServerError,
    areas,
    as_exported,
    best,
    difference,
    no_numbers,
    printable,
    require_rows,
    summary,
)
from client_detections import detections, differences, fit, show_found
from client_pictures import prepare

#: A picture's file, its row of the input, and of a detector's its size there and as it was.
Prepared = tuple[Any, ...]
#: KServe's dtype names -> NumPy's.
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: Classes that are printed when nobody says how many.
CLASSES = 5
HEADER_LENGTH = "Inference-Header-Content-Length"


def load_model_facts(folder: Path = HERE) -> dict[str, Any]:
    """What the package says about its model."""
    about: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))["about"]
    return about


class HttpModel:
    """The model over HTTP, by KServe's protocol v2 with binary tensors; one connection."""

    def __init__(
        self, facts: dict[str, Any], url: str = "127.0.0.1:8000", timeout: float = 30.0
    ) -> None:
        self.facts = facts
        self.connection = http.client.HTTPConnection(url, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Message, bytes]:
        """Status, headers and body of one answer."""
        try:
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def infer(
        self, images: NDArray[Any], sizes: NDArray[Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs by name for an array of the input's dtype: [rows, ...].

        ``sizes`` are a detector's second input: [rows, 2].
        """
        body, length = encode(self.facts, images, sizes)
        path = f"/v2/models/{self.facts['name']}/infer"
        sent = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        status, headers, body = self.request("POST", path, body, sent)
        if status != 200:
            raise ServerError(f"HTTP {status}: {message_of(body)}")
        try:
            answer: dict[str, NDArray[Any]] = as_exported(decode(headers, body), self.facts)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"the answer cannot be read: {error!r}") from error
        return answer

    def statistics(self) -> dict[str, Any]:
        """The server's counters of this model."""
        status, _, body = self.request("GET", f"/v2/models/{self.facts['name']}/stats")
        if status != 200:
            raise ServerError(f"HTTP {status}: {message_of(body)}")
        counters: dict[str, Any] = json.loads(body)["model_stats"][0]
        return counters

    def ready(self) -> bool:
        """Whether the model answers requests."""
        return self.request("GET", f"/v2/models/{self.facts['name']}/ready")[0] == 200

    def close(self) -> None:
        self.connection.close()


def given(
    facts: dict[str, Any], images: NDArray[Any], sizes: NDArray[Any] | None
) -> dict[str, NDArray[Any]]:
    """The inputs' arrays by name."""
    arrays = {facts["input"]["name"]: np.ascontiguousarray(images)}
    if sizes is not None:
        size = facts["size"]
        arrays[size["name"]] = np.ascontiguousarray(sizes, size["dtype"])
    return arrays


def encode(
    facts: dict[str, Any], images: NDArray[Any], sizes: NDArray[Any] | None = None
) -> tuple[bytes, int]:
    """A request's body, and how many of its bytes are the JSON before the tensors."""
    arrays = given(facts, images, sizes)
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": NAMES[str(array.dtype)],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return header + b"".join(array.tobytes() for array in arrays.values()), len(header)


def decode(headers: Message, body: bytes) -> dict[str, NDArray[Any]]:
    """Output arrays by name out of an answer."""
    length = int(headers[HEADER_LENGTH] or len(body))
    outputs, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        dtype = np.dtype(DTYPES[output["datatype"]])
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"], dtype)
        else:
            values = np.frombuffer(body[at : at + size], dtype)
            at += size
        outputs[output["name"]] = values.reshape(output["shape"])
    return outputs


def message_of(body: bytes) -> str:
    """The server's words in an answer that is an error."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


class GrpcModel:
    """The model over gRPC."""

    def __init__(
        self, facts: dict[str, Any], url: str = "127.0.0.1:8001", timeout: float = 30.0
    ) -> None:
        try:
            import tritonclient.grpc
        except (ImportError, RuntimeError) as error:
            raise ServerError('gRPC needs: pip install "tritonclient[grpc]"') from error
        self.facts, self.timeout, self.grpc = facts, timeout, tritonclient.grpc
        self.client = tritonclient.grpc.InferenceServerClient(url)

    def infer(
        self, images: NDArray[Any], sizes: NDArray[Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """As ``HttpModel.infer``."""
        tensors = []
        for name, array in given(self.facts, images, sizes).items():
            tensors.append(self.grpc.InferInput(name, list(array.shape), NAMES[str(array.dtype)]))
            tensors[-1].set_data_from_numpy(array)
        outputs = [output["name"] for output in self.facts["outputs"]]
        wanted = [self.grpc.InferRequestedOutput(output) for output in outputs]
        try:
            answer = self.client.infer(
                self.facts["name"], tensors, outputs=wanted, client_timeout=self.timeout
            )
        except Exception as error:
            raise ServerError(f"gRPC: {error}") from error
        arrays = {output: answer.as_numpy(output) for output in outputs}
        found: dict[str, NDArray[Any]] = as_exported(arrays, self.facts)
        return found

    def close(self) -> None:
        self.client.close()


def show(
    name: object,
    outputs: dict[str, NDArray[Any]],
    row: int,
    facts: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """Print what one picture gave."""
    count = options.top or CLASSES
    top = best(outputs, row, facts, count)
    large = [] if top else areas(outputs, row, facts, count)
    others = {} if top or large else summary(outputs, row)
    if options.json:
        extra = {"areas": large} if large else {"outputs": others} if others else {}
        print(json.dumps({"picture": str(name), "top": top, **extra}))
        return
    name = printable(name)
    for index, label, score in top:
        print(f"{name}\t{index} {printable(label)}".rstrip() + f"\t{100 * score:.2f} %")
    for index, label, share in large:
        label = printable(label)
        print(f"{name}\t{index} {label}".rstrip() + f"\t{100 * share:.2f} % of the pixels")
    for output, about in others.items():
        shown = f"{printable(output)} {about['shape']}"
        print(f"{name}\t{shown}\tmean {about['mean']:g}, rms {about['rms']:g}")


def check(model: HttpModel | GrpcModel, facts: dict[str, Any], folder: Path = HERE) -> list[str]:
    """Differences of the server's answers from the stored ones, as sentences; none means equal."""
    golden = facts["golden"]
    if not golden["outputs"]:
        return [f"the package stores no answers: {golden['why']}"]
    with np.load(folder / golden["file"], allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    images = arrays["input"].astype(facts["input"]["dtype"])
    found = model.infer(images, *([arrays["size"]] if facts.get("size") else []))
    stored = {name[len("output.") :]: arrays[name] for name in arrays if "." in name}
    if "detections" in golden:
        return list(differences(stored, found, golden["detections"]))
    failures = []
    for output in facts["outputs"]:
        name = output["name"]
        wanted, answer = stored.get(name), found.get(name)
        if wanted is None or answer is None:
            failures.append(f"{name}: not {'stored' if wanted is None else 'answered'}")
            continue
        failures += difference(name, wanted, answer, golden["tolerance"])
    return failures


def run(model: HttpModel | GrpcModel, facts: dict[str, Any], options: argparse.Namespace) -> int:
    """Print what every picture gave; the number of pictures that failed."""
    failed, detects = 0, bool(facts.get("size"))
    fixed = facts["input"]["shape"][0]
    size = fixed if isinstance(fixed, int) else min(max(options.batch, 1), facts["max_batch"])
    pictures: list[Prepared] = []
    for path in options.pictures:
        try:
            pictures.append((path, *(fit(path, facts) if detects else (prepare(path, facts),))))
        # Pillow's decoders raise almost anything for a file that somebody has damaged.
        except Exception as error:
            print(printable(f"{path}: {error or type(error).__name__}"), file=sys.stderr)
            failed += 1
    for start in range(0, len(pictures), size):
        part = pictures[start : start + size]
        filled = part + [part[-1]] * (size - len(part) if isinstance(fixed, int) else 0)
        sent = [np.stack([picture[1] for picture in filled])]
        if detects:
            sent.append(np.array([picture[2] for picture in filled]))
        outputs = model.infer(*sent)
        require_rows(outputs, len(filled))
        for row, (name, _, *inside) in enumerate(part):
            wrong = no_numbers(outputs, row)
            if wrong:
                print(printable(f"{name}: {wrong}"), file=sys.stderr)
                failed += 1
            elif detects:
                show_found(name, detections(outputs, row, facts, inside), options)
            else:
                show(name, outputs, row, facts, options)
    return failed


def default_url(protocol: str) -> str:
    """Where run.sh lets the server listen, with the same variables."""
    variable, port = {"http": ("VIM_HTTP_PORT", 8000), "grpc": ("VIM_GRPC_PORT", 8001)}[protocol]
    address = os.environ.get("VIM_ADDRESS") or "127.0.0.1"
    return f"{address}:{os.environ.get(variable) or port}"


def whole_number(text: str) -> int:
    """A count from 1; nobody has more pictures or classes than fit into 32 bits."""
    if text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) < 1 << 31:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a whole number from 1 to {(1 << 31) - 1}")


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("not a number from 0 to 1")
    return value


def seconds(text: str) -> float:
    """A time to wait, up to a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError("not a number of seconds above 0, up to 86400")
    return value


def main(arguments: list[str] | None = None) -> int:
    """0 when everything was answered as it should be, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--protocol", choices=("http", "grpc"), default="http")
    parser.add_argument("--url", help="address and port [as run.sh: 127.0.0.1:8000, gRPC :8001]")
    count = whole_number
    parser.add_argument("--batch", type=count, default=8, help="pictures in one request [8]")
    parser.add_argument(
        "--top", type=count, help=f"classes of each picture [{CLASSES}], or detections [all]"
    )
    parser.add_argument(
        "--score", type=share, help="detections that score more [all that the model gives]"
    )
    parser.add_argument("--timeout", type=seconds, default=30.0, help="for an answer, in s [30]")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--check", action="store_true", help="ask for the stored answers")
    options = parser.parse_args(arguments)
    if not options.pictures and not options.check:
        parser.error("name pictures, or --check")
    facts = load_model_facts()
    kind: type[HttpModel | GrpcModel] = HttpModel if options.protocol == "http" else GrpcModel
    try:
        model = kind(facts, options.url or default_url(options.protocol), options.timeout)
        failures = check(model, facts) if options.check else []
        failed = run(model, facts, options)
        model.close()
    except (ServerError, OSError, http.client.HTTPException) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    for sentence in failures:
        print(printable(f"error: {sentence}"), file=sys.stderr)
    if options.check and not failures:
        print("the server's answers are the stored ones")
    return 1 if failures or failed else 0


if __name__ == "__main__":
    sys.exit(main())

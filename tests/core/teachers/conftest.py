"""A server of the Open Inference Protocol in this process, which fails as it is told to."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tutelage.system.inference_protocol import HEADER_LENGTH, decode, encode

CLASSES = 6


def say(images):
    """Return the logits of images: sums of parts of them."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return np.stack([flat[:, part::CLASSES].sum(1) for part in range(CLASSES)], 1).astype(np.float32)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.headers_seen.append(dict(self.headers))
        if self.server.metadata_status != 200:
            return self.reply(json.dumps({"error": "not now"}).encode(), status=self.server.metadata_status)
        return self.reply(
            json.dumps({"extensions": self.server.extensions} if self.path == "/v2" else self.server.metadata).encode()
        )

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers_seen.append(dict(self.headers))
        fault = self.server.faults.pop(0) if self.server.faults else None
        content, tensors = decode("inputs", body, self.headers.get(HEADER_LENGTH))
        images = tensors[self.server.metadata["inputs"][0]["name"]]
        self.server.sent.append((images, self.headers.get(HEADER_LENGTH) is not None))
        if fault == "slow":
            time.sleep(0.6)
        if fault == "reset":
            # Half an answer, then the connection breaks.
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if isinstance(fault, int):
            said = {"error": f"no: {self.headers.get('Authorization')} {self.headers.get('X-Api-Key')}"}
            return self.reply(json.dumps(said).encode(), status=fault)
        outputs = self.server.answer(images)
        if fault == "nan":
            outputs = {name: np.full_like(array, np.nan) for name, array in outputs.items()}
        if fault == "shape":
            outputs = {name: array[:, :-1] for name, array in outputs.items()}
        if fault == "short":
            outputs = {name: array[:-1] for name, array in outputs.items()}
        if fault == "junk":
            return self.reply(b"<html>busy</html>")
        self.server.answered += len(images)
        wanted = {each["name"]: each.get("parameters", {}).get("binary_data") for each in content["outputs"]}
        outputs = {name: outputs[name] for name in wanted}
        return self.reply(*encode("outputs", outputs, binary=any(wanted.values()), model_name="box"))

    def reply(self, body, headers=None, status=200):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Box(ThreadingHTTPServer):
    """A model of 3 x 4 x 5 images; its attributes say what it is and what goes wrong."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.metadata = {
            "name": "box",
            "versions": ["1"],
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, -1, -1]}],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}],
        }
        self.extensions, self.metadata_status = ["binary_tensor_data"], 200
        self.faults, self.sent, self.headers_seen, self.answered = [], [], [], 0
        self.answer = lambda images: {"logits": say(images)}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def handle_error(self, *arguments):
        pass

    @property
    def asked(self):
        return sum(len(images) for images, _ in self.sent)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v2/models/box"

    def stop(self):
        self.shutdown()
        self.server_close()
        self._thread.join()


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    server = Box()
    yield server
    server.stop()

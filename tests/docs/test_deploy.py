"""The examples of docs/deploy.md, as they stand there."""

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

paddle = pytest.importorskip("paddle")

from paddle_inline import Predictor, create_model, export_model  # noqa: E402
from paddle_inline.inference.serving import add_to_triton  # noqa: E402
from paddle_inline.training.checkpoint import save_weights  # noqa: E402
from paddle_inline.weights.description import describe  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an export, a run and two pictures."""
    folder = tmp_path_factory.mktemp("deploy")
    model = create_model("inline_deit_digits", depth=1)
    names = [f"class {i}" for i in range(10)]
    export_model(model, folder / "DIR", classes=names, log=lambda line: None)
    (folder / "RUN").mkdir()
    description = describe(model.name, {"depth": 1}, None, names)
    save_weights(folder / "RUN" / "best_model.pdparams", model.state_dict(), description)
    for i, name in enumerate(("a.jpg", "b.jpg")):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    return folder


def examples():
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_a_server_with_threads(place, monkeypatch):
    monkeypatch.chdir(place)
    names = {"__name__": "example"}
    exec(compile(examples()[0], "deploy", "exec"), names)
    server = names["server"]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    answers = []

    def ask():
        answers.append(json.loads(urllib.request.urlopen(url, (place / "a.jpg").read_bytes()).read()))

    try:
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 6 and all(answer == answers[0] for answer in answers)
        assert len(answers[0]) == 3 and answers[0][0]["name"].startswith("class ")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(url, b"no picture")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("number", [1, 2], ids=["processes", "notebook"])
def test_a_pool_of_processes_and_a_notebook(place, number):
    (place / "example.py").write_text(examples()[number] + ("    print(names)\n" if number == 1 else ""))
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=place,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("class ") == (2 if number == 1 else 4)


class Server(BaseHTTPRequestHandler):
    """Answers as a model server does, with the program of a version that was added to its folder."""

    def do_POST(self):
        import onnxruntime

        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]
        name = self.path.split("/")[3]
        session = onnxruntime.InferenceSession(str(self.server.folder / name / "1" / "model.onnx"))
        image = np.array(asked["data"], np.float32).reshape(asked["shape"])
        logits = session.run(None, {asked["name"]: image})[0]
        self.send_response(200)
        self.end_headers()
        answer = {
            "name": "out",
            "shape": list(logits.shape),
            "datatype": "FP32",
            "data": logits.ravel().tolist(),
        }
        self.wfile.write(json.dumps({"outputs": [answer]}).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def served(place):
    """The folder of `place` with a repository of models in it, and a server of that."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("paddle2onnx")
    model = create_model("inline_deit_digits", weights=place / "RUN" / "best_model.pdparams")
    export_model(model, place / "served", onnx=True, log=lambda line: None)
    add_to_triton(place / "served", place / "triton_models", "digits")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.folder = place / "triton_models"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_request_to_a_model_server(place, served, monkeypatch, capsys):
    monkeypatch.chdir(place)
    exec(compile(examples()[3].replace("127.0.0.1:8000", served), "deploy", "exec"), {})
    model = create_model(weights=place / "RUN" / "best_model.pdparams")
    assert capsys.readouterr().out.strip() == Predictor(model)("a.jpg", topk=1)[0][0].name


def test_fastapi(place, monkeypatch):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    monkeypatch.chdir(place)
    names = {"__name__": "example"}
    exec(compile(examples()[4], "deploy", "exec"), names)
    client = TestClient(names["app"])
    answer = client.post("/classify", files={"file": (place / "a.jpg").read_bytes()}, params={"topk": 2})
    assert answer.status_code == 200 and len(answer.json()) == 2
    assert answer.json()[0]["name"] == Predictor("DIR")("a.jpg", topk=1)[0][0].name
    assert client.post("/classify", files={"file": b"no picture"}).status_code == 400


def test_gradio(place, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.chdir(place)
    names = {"__name__": "example"}
    exec(compile(examples()[5], "deploy", "exec"), names)
    answer = names["classify"](Image.open(place / "a.jpg"))
    assert len(answer) == 5 and sum(answer.values()) <= 1.0001
